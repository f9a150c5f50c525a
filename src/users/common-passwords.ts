// Of ten characters and more, those that guessers try first (from the lists of passwords found in breaches). Shorter
// ones are refused for their length, patterns and our own words by rule: password.ts.

const list = `
  0123456789 1029384756 1111122222 1112223334 1123581321 1223334444 1234512345 1234567890q
  1234567890qwertyuiop 1234567891 123456789a 123456789q 123456789qwe 12345qwert 123qweasdzxc 12qwaszx12
  147258369a 1478963250 1q2w3e4r5t 1q2w3e4r5t6y 1qa2ws3ed4rf 1qaz2wsx3edc 1qazxsw23edc 5555566666 9876543210
  a123456789 a1b2c3d4e5 aa12345678 aa123456789 abc123456789 abcd123456 abcd1234567 abcde12345 administrator
  alexander1 asdfasdfasdf asdfgh123456 asdfghjkl1 asdfghjkl123 asdfghjklqwertyuiop azertyuiop barcelona1
  basketball basketball1 bismillah1 bismillah123 blink182blink butterfly1 changeme12 changeme123 changemenow
  charlie123 chocolate1 christopher computer123 contraseña correcthorse correcthorsebatterystaple default123
  dragonball elizabeth1 football123 fuckyou123 guest12345 helloworld helloworld1 home123456 homeassistant
  iloveyou12 iloveyou123 iloveyou1234 internet123 jonathan123 jordan2323 letmein123 letmein1234 letmeinnow
  liverpool1 liverpoolfc lovely1234 manchester manchester1 master1234 masterkey1 metallica1 michael123
  minecraft1 minecraft123 mosquitto1 mustang123 mynameisjohn mypassword mypassword1 p@ssw0rd12 p@ssw0rd123
  p@ssw0rd1234 p@ssword123 pa$$w0rd123 pa55word123 passw0rd12 passw0rd123 passw0rd1234 password01 password10
  password11 password12 password123 password1234 password12345 password123456 passwort123 princess123
  q1w2e3r4t5 q1w2e3r4t5y6 qazwsxedc1 qazwsxedcrfv qqww1122ee qwe123456789 qweasdzxc1 qweasdzxc123 qwer123456
  qwert12345 qwerty12345 qwerty123456 qwertyqwerty qwertyuiop qwertyuiop1 qwertyuiop123 qwertyuiop[]
  qwertyuiopasdfghjkl qwertzuiop qwertzuiopü secret1234 snickers12 spiderman1 sunshine123 superman123
  supersecret sweetheart system1234 temppassword test123456 testtest12 trustno1trustno1 verysecret
  victoria123 volleyball whatever123 willkommen zaq12wsxcde3 zxcvbnm123 zxcvbnm1234 zxcvbnmasdfghjkl
`;

export const commonPasswords: ReadonlySet<string> = new Set(list.trim().split(/\s+/));
