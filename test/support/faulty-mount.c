// A disk that fails on demand: a FUSE mount that passes everything through to a backing folder, unless a line of the
// control file says that an operation on a path fails.
//
//   faulty-mount BACKING CONTROL MOUNTPOINT [FUSE options]
//
// A line is OPERATIONS ERRNO PATTERN: `write,fsync 5 *ring-003`, the pattern as of fnmatch on the path below the mount.
// Operations: open (for writing), create, mkdir, unlink, rename, truncate, write, fsync, read. Files in a folder `ring`
// go past the page cache, so that what is read is read here. Not a disk with a memory of its own: what was written
// before a fault is in the backing folder.
//
// Build: cc -O2 -Wall faulty-mount.c -o faulty-mount $(pkg-config fuse3 --cflags --libs)

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int backing;
static const char *control;

// Paths come absolute from the mount; below the backing folder they are relative.
static const char *below(const char *path) { return path[1] == '\0' ? "." : path + 1; }

// The errno an operation is to fail with, 0 for none. Read anew each time: a fault begins and ends at once.
static int fault(const char *operation, const char *path) {
  char text[4096];
  int fd = open(control, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return 0;
  text[got] = '\0';
  char *rest = text;
  for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
    char operations[256], pattern[256];
    int number;
    if (sscanf(line, "%255s %d %255s", operations, &number, pattern) != 3) continue;
    if (fnmatch(pattern, path, 0) != 0) continue;
    char *left = operations;
    for (char *name; (name = strsep(&left, ",")) != NULL;) {
      if (strcmp(name, operation) == 0) return number;
    }
  }
  return 0;
}

#define FAIL_IF(operation, path)                    \
  do {                                              \
    int number = fault(operation, path);            \
    if (number != 0) return -number;                \
  } while (0)

static int result(int returned) { return returned < 0 ? -errno : 0; }

static void *start(struct fuse_conn_info *connection, struct fuse_config *config) {
  (void)connection;
  config->use_ino = 1;
  // The backing folder changes through this mount alone.
  config->entry_timeout = config->attr_timeout = 60;
  // Operations on open files are told their path: faults go by it.
  config->nullpath_ok = 0;
  config->hard_remove = 1;
  return NULL;
}

static int do_getattr(const char *path, struct stat *out, struct fuse_file_info *file) {
  if (file != NULL) return result(fstat((int)file->fh, out));
  return result(fstatat(backing, below(path), out, AT_SYMLINK_NOFOLLOW));
}

static int do_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *file, enum fuse_readdir_flags flags) {
  (void)offset, (void)file, (void)flags;
  int fd = openat(backing, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  DIR *folder = fdopendir(fd);
  if (folder == NULL) {
    int error = errno;
    close(fd);
    return -error;
  }
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    struct stat stat = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
    if (fill(buffer, entry->d_name, &stat, 0, 0) != 0) break;
  }
  closedir(folder);
  return 0;
}

static int opened(int fd, const char *path, struct fuse_file_info *file) {
  if (fd < 0) return -errno;
  file->fh = (uint64_t)fd;
  file->direct_io = strstr(path, "/ring/") != NULL;
  return 0;
}

static int do_open(const char *path, struct fuse_file_info *file) {
  if ((file->flags & O_ACCMODE) != O_RDONLY) FAIL_IF("open", path);
  return opened(openat(backing, below(path), file->flags & ~O_NOFOLLOW), path, file);
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *file) {
  FAIL_IF("create", path);
  return opened(openat(backing, below(path), file->flags | O_CREAT, mode), path, file);
}

static int do_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *file) {
  FAIL_IF("read", path);
  ssize_t got = pread((int)file->fh, to, size, offset);
  return got < 0 ? -errno : (int)got;
}

static int do_write(const char *path, const char *from, size_t size, off_t offset, struct fuse_file_info *file) {
  FAIL_IF("write", path);
  ssize_t put = pwrite((int)file->fh, from, size, offset);
  return put < 0 ? -errno : (int)put;
}

static int do_fsync(const char *path, int dataonly, struct fuse_file_info *file) {
  FAIL_IF("fsync", path);
  return result(dataonly ? fdatasync((int)file->fh) : fsync((int)file->fh));
}

static int do_fsyncdir(const char *path, int dataonly, struct fuse_file_info *file) {
  (void)dataonly, (void)file;
  FAIL_IF("fsync", path);
  int fd = openat(backing, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int outcome = result(fsync(fd));
  close(fd);
  return outcome;
}

static int do_release(const char *path, struct fuse_file_info *file) {
  (void)path;
  return result(close((int)file->fh));
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *file) {
  FAIL_IF("truncate", path);
  if (file != NULL) return result(ftruncate((int)file->fh, size));
  int fd = openat(backing, below(path), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int outcome = result(ftruncate(fd, size));
  close(fd);
  return outcome;
}

static int do_fallocate(const char *path, int mode, off_t offset, off_t length, struct fuse_file_info *file) {
  FAIL_IF("write", path);
  return result(fallocate((int)file->fh, mode, offset, length));
}

// LevelDB locks its folder with POSIX locks: two gateways on one mount must find each other.
static int do_flock(const char *path, struct fuse_file_info *file, int operation) {
  (void)path;
  return result(flock((int)file->fh, operation));
}

static int do_mknod(const char *path, mode_t mode, dev_t device) {
  FAIL_IF("create", path);
  return result(mknodat(backing, below(path), mode, device));
}

static int do_mkdir(const char *path, mode_t mode) {
  FAIL_IF("mkdir", path);
  return result(mkdirat(backing, below(path), mode));
}

static int do_unlink(const char *path) {
  FAIL_IF("unlink", path);
  return result(unlinkat(backing, below(path), 0));
}

static int do_rmdir(const char *path) { return result(unlinkat(backing, below(path), AT_REMOVEDIR)); }

static int do_rename(const char *from, const char *to, unsigned int flags) {
  FAIL_IF("rename", from);
  return result(renameat2(backing, below(from), backing, below(to), flags));
}

static int do_link(const char *from, const char *to) {
  return result(linkat(backing, below(from), backing, below(to), 0));
}

static int do_symlink(const char *target, const char *path) { return result(symlinkat(target, backing, below(path))); }

static int do_readlink(const char *path, char *to, size_t size) {
  ssize_t got = readlinkat(backing, below(path), to, size - 1);
  if (got < 0) return -errno;
  to[got] = '\0';
  return 0;
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *file) {
  (void)file;
  return result(fchmodat(backing, below(path), mode, 0));
}

static int do_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *file) {
  (void)file;
  return result(utimensat(backing, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int do_statfs(const char *path, struct statvfs *out) {
  (void)path;
  return result(fstatvfs(backing, out));
}

static const struct fuse_operations operations = {
    .init = start,
    .getattr = do_getattr,
    .readdir = do_readdir,
    .open = do_open,
    .create = do_create,
    .read = do_read,
    .write = do_write,
    .fsync = do_fsync,
    .fsyncdir = do_fsyncdir,
    .release = do_release,
    .truncate = do_truncate,
    .fallocate = do_fallocate,
    .flock = do_flock,
    .mknod = do_mknod,
    .mkdir = do_mkdir,
    .unlink = do_unlink,
    .rmdir = do_rmdir,
    .rename = do_rename,
    .link = do_link,
    .symlink = do_symlink,
    .readlink = do_readlink,
    .chmod = do_chmod,
    .utimens = do_utimens,
    .statfs = do_statfs,
};

int main(int count, char *arguments[]) {
  if (count < 4) {
    fprintf(stderr, "usage: faulty-mount BACKING CONTROL MOUNTPOINT [FUSE options]\n");
    return 2;
  }
  backing = open(arguments[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  control = realpath(arguments[2], NULL);
  if (backing < 0 || control == NULL) {
    fprintf(stderr, "faulty-mount: %s\n", strerror(errno));
    return 1;
  }
  umask(0);
  // fuse_main wants the program's name, then the mount point.
  arguments[2] = arguments[0];
  return fuse_main(count - 2, arguments + 2, &operations, NULL);
}
