// Device ids for devices that bring only a name. Pure.

const slugCharactersMax = 48;

/** `Smart Temperature Sensor 001` → `smart-temperature-sensor-001`. */
function slugOf(name: string): string {
  const slug = name
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, slugCharactersMax)
    .replace(/^-+|-+$/g, '');
  // A number alone could be taken for the number of another device; `gateway` is the gateway's own.
  return slug === '' || slug === 'gateway' || /^\d+$/.test(slug) ? `device-${slug}`.replace(/-$/, '') : slug;
}

/** The first of `kitchen`, `kitchen-2`, `kitchen-3` … that is free. */
export function freeDeviceId(name: string, isTaken: (deviceId: string) => boolean): string {
  const slug = slugOf(name);
  let deviceId = slug;
  for (let number = 2; isTaken(deviceId); number += 1) deviceId = `${slug}-${number}`;
  return deviceId;
}
