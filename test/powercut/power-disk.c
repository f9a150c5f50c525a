// A disk that can lose its power: a FUSE file system in memory that knows of every byte and every name whether it
// has reached the disk, and writes down on command a state that a power cut at this instant could leave behind.
// The disk itself goes on, so that many cuts are taken from one life of a program.
//
//   power-disk ordered|own|posix CONTROL FROM MOUNTPOINT [FUSE options]
//
// What it promises to keep, and nothing more:
// - bytes of a file once fsync, fdatasync or a write to a file opened with O_DSYNC (the kernel calls fsync) is done;
// - `ordered`, as a journaling file system (ext4, XFS, btrfs) has it: names change in one order for the whole
//   disk, and a prefix of it is kept. fsync of a folder keeps everything up to the last change in it, fsync of a
//   file up to its last rename, fdatasync of a file up to its creation only;
// - `own`, as a log-structured one (F2FS) has it: the same, but fsync of a file keeps its own name and no other; only
//   fsync of a folder keeps what went before;
// - `posix`: a name is kept once its folder was synced; any of the others may be missing, in any order.
//
// What has not been synced is kept by the toss of a coin: nothing, everything, all up to one moment (the write at
// that moment torn between two sectors), or each sector of 512 bytes in any state it had since the last sync. Cuts
// with `ordered` sectors leave no holes in what was appended to a file (ext4 with data=ordered); with `any` they do,
// zeros in their place, as they may be left by file systems that write sizes before data.
//
// CONTROL is a Unix socket; one command a connection, and one line as answer:
//   cut SEED ordered|any DEST                      -> ok NANOSECONDS cut /
//   arm EVENT before|after N SEED ordered|any DEST GLOB  -> the same when EVENT happens for the N-th time
//   disarm DEST                                    -> ok 0 disarm /
// EVENT: write, first (a write at position 0), again (a write at position 0 over something), fsync, first-fsync,
// again-fsync (of such a write), create, mkdir, rename, unlink, fsyncdir, any. NANOSECONDS is CLOCK_MONOTONIC at the
// cut. DEST must not exist. Everything at FROM (`-` for nothing) is on the disk when it starts, as if synced.
//
// Build: cc -O2 -Wall power-disk.c -o power-disk $(pkg-config fuse3 --cflags --libs)

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <fuse.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { sector_bytes = 512, page_bytes = 4096 };

struct node;

struct entry {
  char *name;
  struct node *node;
};

struct list {
  struct entry *entries;
  size_t count, room;
};

// A write, or a change of size (`data` is NULL).
struct change {
  uint64_t moment;
  size_t offset, length;
  char *data;
};

struct node {
  uint64_t number;
  mode_t mode;
  struct timespec modified;
  struct node *parent;
  char *name;
  int opened;
  bool is_linked;
  // A file: what programs read, what the disk has, and what happened in between.
  char *now, *durable;
  size_t now_size, now_room, durable_size, durable_room;
  struct change *changes;
  size_t change_count, change_room;
  // Moments of its creation and its last rename.
  uint64_t created, moved;
  // A folder: as programs see it, as the disk has it, and while a cut is written down.
  struct list seen, kept, cut;
  struct node *next_folder;
  // A symbolic link.
  char *target;
};

// A change of names: `node` goes to (to, to_name); with NULL there it only leaves (from, from_name).
struct naming {
  uint64_t moment;
  struct node *from, *to, *node;
  char *from_name, *to_name;
  bool is_synced;
};

struct arm {
  char event[16], when[8], sectors[8];
  uint64_t seed;
  long left;
  char *dest, *glob;
  int reply;
  struct arm *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_posix, is_own;
static struct node *root, *folders;
static struct naming *namings;
static size_t naming_count, naming_room;
static uint64_t moment, numbers;
static struct arm *arms;

static void *must(void *allocated) {
  if (allocated == NULL) abort();
  return allocated;
}

static struct timespec wall(void) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  return at;
}

// Lists of names

static struct entry *find(struct list *list, const char *name) {
  for (size_t index = 0; index < list->count; index += 1) {
    if (strcmp(list->entries[index].name, name) == 0) return &list->entries[index];
  }
  return NULL;
}

static void put(struct list *list, const char *name, struct node *node) {
  struct entry *known = find(list, name);
  if (known != NULL) {
    known->node = node;
    return;
  }
  if (list->count == list->room) {
    list->room = list->room * 2 + 8;
    list->entries = must(realloc(list->entries, list->room * sizeof *list->entries));
  }
  list->entries[list->count++] = (struct entry){must(strdup(name)), node};
}

static void drop(struct list *list, const char *name) {
  struct entry *known = find(list, name);
  if (known == NULL) return;
  free(known->name);
  *known = list->entries[--list->count];
}

static void copy_list(struct list *to, const struct list *from) {
  while (to->count > 0) drop(to, to->entries[to->count - 1].name);
  for (size_t index = 0; index < from->count; index += 1) put(to, from->entries[index].name, from->entries[index].node);
}

// Nodes

static struct node *make_node(mode_t mode) {
  struct node *node = must(calloc(1, sizeof *node));
  node->number = ++numbers;
  node->mode = mode;
  node->modified = wall();
  if (S_ISDIR(mode)) {
    node->next_folder = folders;
    folders = node;
  }
  return node;
}

static void forget_changes(struct node *node) {
  for (size_t index = 0; index < node->change_count; index += 1) free(node->changes[index].data);
  node->change_count = 0;
}

// Nobody has it open, and no cut can bring it back.
static void free_content(struct node *node) {
  if (node->opened > 0 || node->is_linked) return;
  for (size_t index = 0; index < naming_count; index += 1) {
    if (namings[index].node == node) return;
  }
  forget_changes(node);
  free(node->now);
  free(node->durable);
  node->now = node->durable = NULL;
  node->now_size = node->now_room = node->durable_size = node->durable_room = 0;
}

static void resize(char **content, size_t *size, size_t *room, size_t wanted) {
  if (wanted > *room) {
    *room = wanted + wanted / 2;
    *content = must(realloc(*content, *room));
  }
  if (wanted > *size) memset(*content + *size, 0, wanted - *size);
  *size = wanted;
}

static void apply(char **content, size_t *size, size_t *room, const struct change *change) {
  if (change->data == NULL) {
    resize(content, size, room, change->length);
    return;
  }
  if (change->offset + change->length > *size) resize(content, size, room, change->offset + change->length);
  memcpy(*content + change->offset, change->data, change->length);
}

static void record(struct node *node, size_t offset, size_t length, const char *data) {
  struct change change = {++moment, offset, length, NULL};
  if (data != NULL) {
    change.data = must(malloc(length + 1));
    memcpy(change.data, data, length);
  }
  if (node->change_count == node->change_room) {
    node->change_room = node->change_room * 2 + 8;
    node->changes = must(realloc(node->changes, node->change_room * sizeof *node->changes));
  }
  node->changes[node->change_count++] = change;
  apply(&node->now, &node->now_size, &node->now_room, &change);
  node->modified = wall();
}

static void sync_content(struct node *node) {
  for (size_t index = 0; index < node->change_count; index += 1) {
    apply(&node->durable, &node->durable_size, &node->durable_room, &node->changes[index]);
  }
  forget_changes(node);
}

static void path_of(const struct node *node, char *path, size_t room) {
  if (node->parent == NULL) {
    snprintf(path, room, "%s", node == root ? "" : "(gone)");
    return;
  }
  path_of(node->parent, path, room);
  size_t length = strlen(path);
  snprintf(path + length, room - length, "/%s", node->name);
}

// Names on the disk

static void rename_in(struct list *(*list)(struct node *), const struct naming *naming) {
  if (naming->from != NULL) {
    struct entry *there = find(list(naming->from), naming->from_name);
    // In any order something else may have come under the old name.
    if (there != NULL && there->node == naming->node) drop(list(naming->from), naming->from_name);
  }
  if (naming->to != NULL) put(list(naming->to), naming->to_name, naming->node);
}

static struct list *kept_of(struct node *folder) { return &folder->kept; }
static struct list *cut_of(struct node *folder) { return &folder->cut; }

// What is surely on the disk, in order, leaves the log.
static void trim(void) {
  size_t done = 0;
  while (done < naming_count && namings[done].is_synced) rename_in(kept_of, &namings[done++]);
  if (done == 0) return;
  struct node **touched = must(malloc(done * sizeof *touched));
  for (size_t index = 0; index < done; index += 1) {
    touched[index] = namings[index].node;
    free(namings[index].from_name);
    free(namings[index].to_name);
  }
  naming_count -= done;
  memmove(namings, namings + done, naming_count * sizeof *namings);
  for (size_t index = 0; index < done; index += 1) free_content(touched[index]);
  free(touched);
}

static void sync_names(uint64_t until) {
  if (is_posix) return;
  for (size_t index = 0; index < naming_count && namings[index].moment <= until; index += 1) {
    namings[index].is_synced = true;
  }
  trim();
}

// fsync of a file (or fdatasync, with `until` its creation).
static void sync_own_name(struct node *node, uint64_t until) {
  if (!is_own) {
    sync_names(until);
    return;
  }
  for (size_t index = 0; index < naming_count; index += 1) {
    // In a folder that is new itself even such a file system writes everything down.
    if (namings[index].node == node->parent) {
      sync_names(until);
      return;
    }
  }
  for (size_t index = 0; index < naming_count && namings[index].moment <= until; index += 1) {
    if (namings[index].node == node) namings[index].is_synced = true;
  }
  trim();
}

static void sync_folder(struct node *folder) {
  uint64_t last = 0;
  for (size_t index = 0; index < naming_count; index += 1) {
    struct naming *naming = &namings[index];
    if (naming->from != folder && naming->to != folder) continue;
    last = naming->moment;
    if (is_posix) naming->is_synced = true;
  }
  if (is_posix) trim();
  else sync_names(last);
}

static void name(struct node *from, const char *from_name, struct node *to, const char *to_name, struct node *node) {
  if (naming_count == naming_room) {
    naming_room = naming_room * 2 + 8;
    namings = must(realloc(namings, naming_room * sizeof *namings));
  }
  namings[naming_count++] = (struct naming){
      .moment = ++moment,
      .from = from,
      .to = to,
      .node = node,
      .from_name = from == NULL ? NULL : must(strdup(from_name)),
      .to_name = to == NULL ? NULL : must(strdup(to_name)),
  };
  if (from == NULL) node->created = moment;
  node->moved = moment;
  if (from != NULL) {
    drop(&from->seen, from_name);
    from->modified = wall();
    node->is_linked = false;
  }
  if (to == NULL) return;
  put(&to->seen, to_name, node);
  to->modified = wall();
  free(node->name);
  node->name = must(strdup(to_name));
  node->parent = to;
  node->is_linked = true;
}

// Chance

static uint64_t chance;

static uint64_t next_random(void) {
  // splitmix64
  uint64_t z = (chance += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static uint64_t below(uint64_t limit) { return limit == 0 ? 0 : next_random() % limit; }

// A cut

enum keeping { keep_nothing, keep_everything, keep_until, keep_any };

struct choice {
  enum keeping keeping;
  // The moment, for `keep_until`.
  uint64_t until;
  bool has_holes;
};

static bool is_zero(const char *bytes, size_t length) {
  for (size_t index = 0; index < length; index += 1) {
    if (bytes[index] != 0) return false;
  }
  return true;
}

static void write_out(const char *path, mode_t mode, const char *content, size_t size) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode & 07777);
  if (fd < 0) return;
  // Zeros stay holes: a ring is mostly zeros, and images lie in memory.
  for (size_t at = 0; at < size; at += 64 * 1024) {
    size_t length = size - at < 64 * 1024 ? size - at : 64 * 1024;
    if (is_zero(content + at, length)) continue;
    if (pwrite(fd, content + at, length, (off_t)at) != (ssize_t)length) abort();
  }
  if (ftruncate(fd, (off_t)size) != 0) abort();
  close(fd);
}

static void cut_file(const struct node *node, const char *path, const struct choice *choice) {
  size_t count = node->change_count;
  if (choice->keeping == keep_everything || count == 0) {
    write_out(path, node->mode, node->now, node->now_size);
    return;
  }
  if (choice->keeping == keep_nothing) {
    write_out(path, node->mode, node->durable, node->durable_size);
    return;
  }
  // Its size after each change.
  size_t *sizes = must(calloc(count + 1, sizeof *sizes));
  size_t largest = sizes[0] = node->durable_size;
  for (size_t index = 0; index < count; index += 1) {
    const struct change *change = &node->changes[index];
    size_t end = change->offset + change->length;
    sizes[index + 1] = change->data == NULL ? change->length : end > sizes[index] ? end : sizes[index];
    if (sizes[index + 1] > largest) largest = sizes[index + 1];
  }
  // How many changes each sector has seen, and the size.
  size_t sectors = largest / sector_bytes + 1;
  uint32_t *versions = must(calloc(sectors, sizeof *versions));
  size_t sized = 0;
  if (choice->keeping == keep_until) {
    while (sized < count && node->changes[sized].moment <= choice->until) sized += 1;
    for (size_t index = 0; index < sectors; index += 1) versions[index] = (uint32_t)sized;
    // The next one was on its way.
    if (sized < count && node->changes[sized].data != NULL && below(2) == 0) {
      const struct change *change = &node->changes[sized];
      size_t first = change->offset / sector_bytes;
      size_t last = (change->offset + change->length + sector_bytes - 1) / sector_bytes;
      size_t torn = first + below(last - first + 1);
      for (size_t index = first; index < torn; index += 1) versions[index] += 1;
      if (torn > first) {
        size_t end = torn * sector_bytes < sizes[sized + 1] ? torn * sector_bytes : sizes[sized + 1];
        if (end > sizes[sized]) {
          sizes[sized] = end;
        }
      }
    }
  } else {
    sized = below(count + 1);
    size_t appended = node->durable_size / sector_bytes;
    // Mostly old, mostly new, or half and half.
    uint64_t fresh = 1 + below(9);
    for (size_t index = 0; index < sectors; index += 1) {
      uint32_t version = below(4) == 0 ? (uint32_t)below(count + 1) : below(10) < fresh ? (uint32_t)count : 0;
      if (!choice->has_holes && index >= appended && version < sized) version = (uint32_t)sized;
      versions[index] = version;
    }
  }
  char *content = must(calloc(1, largest + sector_bytes));
  if (node->durable_size > 0) memcpy(content, node->durable, node->durable_size);
  for (size_t index = 0; index < count; index += 1) {
    const struct change *change = &node->changes[index];
    size_t from = change->data == NULL ? change->length : change->offset;
    size_t end = change->data == NULL ? largest : change->offset + change->length;
    while (from < end) {
      size_t sector = from / sector_bytes;
      size_t until = (sector + 1) * sector_bytes < end ? (sector + 1) * sector_bytes : end;
      if (index < versions[sector]) {
        if (change->data == NULL) memset(content + from, 0, until - from);
        else memcpy(content + from, change->data + (from - change->offset), until - from);
      }
      from = until;
    }
  }
  write_out(path, node->mode, content, sizes[sized]);
  free(content);
  free(versions);
  free(sizes);
}

static void cut_folder(struct node *folder, const char *path, const struct choice *choice) {
  if (mkdir(path, folder->mode & 07777) != 0) return;
  for (size_t index = 0; index < folder->cut.count; index += 1) {
    struct entry *entry = &folder->cut.entries[index];
    char below_path[4096];
    if (snprintf(below_path, sizeof below_path, "%s/%s", path, entry->name) >= (int)sizeof below_path) abort();
    if (S_ISDIR(entry->node->mode)) cut_folder(entry->node, below_path, choice);
    else if (S_ISREG(entry->node->mode)) cut_file(entry->node, below_path, choice);
    else if (S_ISLNK(entry->node->mode)) (void)!symlink(entry->node->target, below_path);
    else mknod(below_path, entry->node->mode, 0);
  }
}

static void cut(uint64_t seed, const char *sectors, const char *dest) {
  chance = seed;
  struct choice choice = {.has_holes = strcmp(sectors, "any") == 0, .until = moment};
  uint64_t toss = below(20);
  choice.keeping = toss < 5 ? keep_nothing : toss < 8 ? keep_everything : toss < 13 ? keep_until : keep_any;
  uint64_t first = naming_count > 0 ? namings[0].moment - 1 : moment;
  // The log of one file may be older than the first name that waits.
  if (choice.keeping == keep_until) choice.until = below(2) == 0 ? first + below(moment - first + 1) : moment - below(moment < 8 ? moment : 8);
  for (struct node *folder = folders; folder != NULL; folder = folder->next_folder) copy_list(&folder->cut, &folder->kept);
  size_t kept = choice.keeping == keep_any ? below(naming_count + 1) : naming_count;
  for (size_t index = 0; index < naming_count; index += 1) {
    bool is_kept = namings[index].is_synced || choice.keeping == keep_everything;
    if (choice.keeping == keep_until) is_kept |= namings[index].moment <= choice.until;
    if (choice.keeping == keep_any) is_kept |= is_posix ? below(2) == 0 : index < kept;
    if (is_kept) rename_in(cut_of, &namings[index]);
  }
  cut_folder(root, dest, &choice);
}

// Moments

static uint64_t monotonic_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void answer(int reply, uint64_t ns, const char *event, const char *path) {
  char line[4200];
  int length = snprintf(line, sizeof line, "ok %" PRIu64 " %s %s\n", ns, event, path);
  (void)!write(reply, line, (size_t)length);
  close(reply);
}

static void happens(const char *event, const char *when, const struct node *node, const char *leaf) {
  if (arms == NULL) return;
  char path[4096];
  path_of(node, path, sizeof path);
  if (leaf != NULL) {
    size_t length = strlen(path);
    snprintf(path + length, sizeof path - length, "/%s", leaf);
  }
  for (struct arm **at = &arms; *at != NULL;) {
    struct arm *arm = *at;
    bool fits = strcmp(arm->event, event) == 0 || strcmp(arm->event, "any") == 0;
    fits = fits && strcmp(arm->when, when) == 0 && fnmatch(arm->glob, path, 0) == 0;
    if (!fits || --arm->left > 0) {
      at = &arm->next;
      continue;
    }
    *at = arm->next;
    uint64_t ns = monotonic_ns();
    cut(arm->seed, arm->sectors, arm->dest);
    answer(arm->reply, ns, event, path);
    free(arm->dest);
    free(arm->glob);
    free(arm);
  }
}

static void control_one(int connection) {
  char line[9000], dest[4096], glob[4096];
  size_t length = 0;
  while (length < sizeof line - 1) {
    ssize_t got = read(connection, line + length, sizeof line - 1 - length);
    if (got <= 0) break;
    length += (size_t)got;
    if (line[length - 1] == '\n') break;
  }
  line[length] = '\0';
  struct arm arm = {.reply = connection};
  pthread_mutex_lock(&lock);
  if (sscanf(line, "cut %" SCNu64 " %7s %4095s", &arm.seed, arm.sectors, dest) == 3) {
    uint64_t ns = monotonic_ns();
    cut(arm.seed, arm.sectors, dest);
    answer(connection, ns, "cut", "/");
  } else if (sscanf(line, "arm %15s %7s %ld %" SCNu64 " %7s %4095s %4095s", arm.event, arm.when, &arm.left, &arm.seed,
                    arm.sectors, dest, glob) == 7) {
    arm.dest = must(strdup(dest));
    arm.glob = must(strdup(glob));
    arm.next = arms;
    arms = must(malloc(sizeof arm));
    *arms = arm;
  } else if (sscanf(line, "disarm %4095s", dest) == 1) {
    for (struct arm **at = &arms; *at != NULL; at = &(*at)->next) {
      struct arm *found = *at;
      if (strcmp(found->dest, dest) != 0) continue;
      *at = found->next;
      close(found->reply);
      free(found->dest);
      free(found->glob);
      free(found);
      break;
    }
    answer(connection, 0, "disarm", "/");
  } else {
    close(connection);
  }
  pthread_mutex_unlock(&lock);
}

static void *control(void *argument) {
  int listener = *(int *)argument;
  for (;;) {
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0) control_one(connection);
  }
  return NULL;
}

// The file system

static struct node *lookup(const char *path) {
  struct node *at = root;
  while (*path == '/') path += 1;
  while (*path != '\0') {
    const char *end = strchrnul(path, '/');
    char part[256];
    if ((size_t)(end - path) >= sizeof part) return NULL;
    memcpy(part, path, (size_t)(end - path));
    part[end - path] = '\0';
    struct entry *entry = S_ISDIR(at->mode) ? find(&at->seen, part) : NULL;
    if (entry == NULL) return NULL;
    at = entry->node;
    path = end;
    while (*path == '/') path += 1;
  }
  return at;
}

static struct node *parent_of(const char *path, const char **leaf) {
  const char *slash = strrchr(path, '/');
  *leaf = slash + 1;
  if (strlen(*leaf) > 255) return NULL;
  char *folder = must(strndup(path, (size_t)(slash - path)));
  struct node *node = lookup(folder);
  free(folder);
  return node != NULL && S_ISDIR(node->mode) ? node : NULL;
}

static struct node *node_of(const char *path, struct fuse_file_info *file) {
  return file != NULL && file->fh != 0 ? (struct node *)(uintptr_t)file->fh : lookup(path);
}

static int add(const char *path, mode_t mode, const char *event, struct node **made) {
  const char *leaf;
  struct node *folder = parent_of(path, &leaf);
  if (folder == NULL) return -ENOENT;
  if (find(&folder->seen, leaf) != NULL) return -EEXIST;
  happens(event, "before", folder, leaf);
  *made = make_node(mode);
  name(NULL, NULL, folder, leaf, *made);
  happens(event, "after", *made, NULL);
  return 0;
}

static void stat_of(const struct node *node, struct stat *out) {
  memset(out, 0, sizeof *out);
  out->st_ino = node->number;
  out->st_mode = node->mode;
  out->st_nlink = S_ISDIR(node->mode) ? 2 : node->is_linked ? 1 : 0;
  out->st_uid = getuid();
  out->st_gid = getgid();
  out->st_size = S_ISLNK(node->mode) ? (off_t)strlen(node->target) : (off_t)node->now_size;
  out->st_blksize = page_bytes;
  out->st_blocks = (out->st_size + 511) / 512;
  out->st_mtim = out->st_ctim = out->st_atim = node->modified;
}

static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config) {
  connection->max_write = 1 << 20;
  config->use_ino = 1;
  // The content changes through this mount alone.
  config->entry_timeout = config->attr_timeout = 60;
  config->hard_remove = 1;
  static int listener;
  listener = *(int *)fuse_get_context()->private_data;
  pthread_t thread;
  if (pthread_create(&thread, NULL, control, &listener) != 0) abort();
  return NULL;
}

static int fs_getattr(const char *path, struct stat *out, struct fuse_file_info *file) {
  const struct node *node = node_of(path, file);
  if (node == NULL) return -ENOENT;
  stat_of(node, out);
  return 0;
}

static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *file,
                      enum fuse_readdir_flags flags) {
  (void)offset, (void)file, (void)flags;
  struct node *folder = lookup(path);
  if (folder == NULL) return -ENOENT;
  if (!S_ISDIR(folder->mode)) return -ENOTDIR;
  fill(buffer, ".", NULL, 0, 0);
  fill(buffer, "..", NULL, 0, 0);
  for (size_t index = 0; index < folder->seen.count; index += 1) {
    struct stat out;
    stat_of(folder->seen.entries[index].node, &out);
    fill(buffer, folder->seen.entries[index].name, &out, 0, 0);
  }
  return 0;
}

static void opened(struct node *node, struct fuse_file_info *file) {
  node->opened += 1;
  file->fh = (uint64_t)(uintptr_t)node;
  file->keep_cache = 1;
}

static int fs_open(const char *path, struct fuse_file_info *file) {
  struct node *node = lookup(path);
  if (node == NULL) return -ENOENT;
  if ((file->flags & O_TRUNC) != 0 && node->now_size > 0) record(node, 0, 0, NULL);
  opened(node, file);
  return 0;
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *file) {
  struct node *node;
  int error = add(path, S_IFREG | (mode & 07777), "create", &node);
  if (error == 0) opened(node, file);
  return error;
}

static int fs_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *file) {
  const struct node *node = node_of(path, file);
  if ((size_t)offset >= node->now_size) return 0;
  if (size > node->now_size - (size_t)offset) size = node->now_size - (size_t)offset;
  memcpy(to, node->now + offset, size);
  return (int)size;
}

static bool is_used(const struct node *node) { return node->now_size > 0 && !is_zero(node->now, node->now_size < page_bytes ? node->now_size : page_bytes); }

static void writes(const struct node *node, off_t offset, bool again, const char *when) {
  happens("write", when, node, NULL);
  if (offset == 0) happens("first", when, node, NULL);
  if (offset == 0 && again) happens("again", when, node, NULL);
}

static int fs_write(const char *path, const char *from, size_t size, off_t offset, struct fuse_file_info *file) {
  struct node *node = node_of(path, file);
  bool again = offset == 0 && is_used(node);
  writes(node, offset, again, "before");
  record(node, (size_t)offset, size, from);
  writes(node, offset, again, "after");
  return (int)size;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *file) {
  struct node *node = node_of(path, file);
  if (node == NULL) return -ENOENT;
  record(node, 0, (size_t)size, NULL);
  return 0;
}

static int fs_fsync(const char *path, int dataonly, struct fuse_file_info *file) {
  struct node *node = node_of(path, file);
  bool first = false, again = false;
  for (size_t index = 0; index < node->change_count; index += 1) {
    if (node->changes[index].data != NULL && node->changes[index].offset == 0) first = true;
  }
  again = first && node->durable_size > 0 && !is_zero(node->durable, node->durable_size < page_bytes ? node->durable_size : page_bytes);
  happens("fsync", "before", node, NULL);
  if (first) happens("first-fsync", "before", node, NULL);
  if (again) happens("again-fsync", "before", node, NULL);
  sync_content(node);
  sync_own_name(node, dataonly ? node->created : node->moved);
  happens("fsync", "after", node, NULL);
  if (first) happens("first-fsync", "after", node, NULL);
  if (again) happens("again-fsync", "after", node, NULL);
  return 0;
}

static int fs_fsyncdir(const char *path, int dataonly, struct fuse_file_info *file) {
  (void)dataonly, (void)file;
  struct node *folder = lookup(path);
  if (folder == NULL) return -ENOENT;
  happens("fsyncdir", "before", folder, NULL);
  sync_folder(folder);
  happens("fsyncdir", "after", folder, NULL);
  return 0;
}

static int fs_release(const char *path, struct fuse_file_info *file) {
  (void)path;
  struct node *node = (struct node *)(uintptr_t)file->fh;
  node->opened -= 1;
  free_content(node);
  return 0;
}

static int fs_mknod(const char *path, mode_t mode, dev_t device) {
  (void)device;
  struct node *node;
  return add(path, mode, "create", &node);
}

static int fs_mkdir(const char *path, mode_t mode) {
  struct node *node;
  return add(path, S_IFDIR | (mode & 07777), "mkdir", &node);
}

static int fs_symlink(const char *target, const char *path) {
  struct node *node;
  int error = add(path, S_IFLNK | 0777, "create", &node);
  if (error == 0) node->target = must(strdup(target));
  return error;
}

static int fs_readlink(const char *path, char *to, size_t size) {
  const struct node *node = lookup(path);
  if (node == NULL || node->target == NULL) return -EINVAL;
  snprintf(to, size, "%s", node->target);
  return 0;
}

static int gone(const char *path, bool is_folder) {
  const char *leaf;
  struct node *folder = parent_of(path, &leaf), *node = lookup(path);
  if (folder == NULL || node == NULL) return -ENOENT;
  if (is_folder && node->seen.count > 0) return -ENOTEMPTY;
  happens("unlink", "before", node, NULL);
  name(folder, leaf, NULL, NULL, node);
  happens("unlink", "after", node, NULL);
  return 0;
}

static int fs_unlink(const char *path) { return gone(path, false); }

static int fs_rmdir(const char *path) { return gone(path, true); }

static int fs_rename(const char *from, const char *to, unsigned int flags) {
  const char *from_leaf, *to_leaf;
  struct node *from_folder = parent_of(from, &from_leaf), *to_folder = parent_of(to, &to_leaf), *node = lookup(from);
  if (from_folder == NULL || to_folder == NULL || node == NULL) return -ENOENT;
  struct node *there = lookup(to);
  if ((flags & ~(unsigned int)RENAME_NOREPLACE) != 0) return -EINVAL;
  if (flags != 0 && there != NULL) return -EEXIST;
  if (there == node) return 0;
  if (there != NULL && S_ISDIR(there->mode) && there->seen.count > 0) return -ENOTEMPTY;
  happens("rename", "before", to_folder, to_leaf);
  if (there != NULL) there->is_linked = false;
  name(from_folder, from_leaf, to_folder, to_leaf, node);
  happens("rename", "after", node, NULL);
  return 0;
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *file) {
  struct node *node = node_of(path, file);
  if (node == NULL) return -ENOENT;
  node->mode = (node->mode & S_IFMT) | (mode & 07777);
  return 0;
}

// One user, for one user.
static int fs_chown(const char *path, uid_t user, gid_t group, struct fuse_file_info *file) {
  (void)path, (void)user, (void)group, (void)file;
  return 0;
}

static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *file) {
  struct node *node = node_of(path, file);
  if (node == NULL) return -ENOENT;
  if (times[1].tv_nsec == UTIME_NOW) node->modified = wall();
  else if (times[1].tv_nsec != UTIME_OMIT) node->modified = times[1];
  return 0;
}

// Plenty: servers that find no room refuse to store.
static int fs_statfs(const char *path, struct statvfs *out) {
  (void)path;
  *out = (struct statvfs){.f_bsize = page_bytes,
                          .f_frsize = page_bytes,
                          .f_blocks = 16u << 20,
                          .f_bfree = 15u << 20,
                          .f_bavail = 15u << 20,
                          .f_files = 1 << 20,
                          .f_ffree = 1 << 20,
                          .f_favail = 1 << 20,
                          .f_namemax = 255};
  return 0;
}

// Every operation is one step: a cut sees it done or not begun.
#define LOCKED(call)            \
  pthread_mutex_lock(&lock);    \
  int outcome = call;           \
  pthread_mutex_unlock(&lock);  \
  return outcome;

static int do_getattr(const char *p, struct stat *o, struct fuse_file_info *f) { LOCKED(fs_getattr(p, o, f)) }
static int do_readdir(const char *p, void *b, fuse_fill_dir_t l, off_t o, struct fuse_file_info *f, enum fuse_readdir_flags g) { LOCKED(fs_readdir(p, b, l, o, f, g)) }
static int do_open(const char *p, struct fuse_file_info *f) { LOCKED(fs_open(p, f)) }
static int do_create(const char *p, mode_t m, struct fuse_file_info *f) { LOCKED(fs_create(p, m, f)) }
static int do_read(const char *p, char *t, size_t s, off_t o, struct fuse_file_info *f) { LOCKED(fs_read(p, t, s, o, f)) }
static int do_write(const char *p, const char *t, size_t s, off_t o, struct fuse_file_info *f) { LOCKED(fs_write(p, t, s, o, f)) }
static int do_truncate(const char *p, off_t s, struct fuse_file_info *f) { LOCKED(fs_truncate(p, s, f)) }
static int do_fsync(const char *p, int d, struct fuse_file_info *f) { LOCKED(fs_fsync(p, d, f)) }
static int do_fsyncdir(const char *p, int d, struct fuse_file_info *f) { LOCKED(fs_fsyncdir(p, d, f)) }
static int do_release(const char *p, struct fuse_file_info *f) { LOCKED(fs_release(p, f)) }
static int do_mknod(const char *p, mode_t m, dev_t d) { LOCKED(fs_mknod(p, m, d)) }
static int do_mkdir(const char *p, mode_t m) { LOCKED(fs_mkdir(p, m)) }
static int do_symlink(const char *t, const char *p) { LOCKED(fs_symlink(t, p)) }
static int do_readlink(const char *p, char *t, size_t s) { LOCKED(fs_readlink(p, t, s)) }
static int do_unlink(const char *p) { LOCKED(fs_unlink(p)) }
static int do_rmdir(const char *p) { LOCKED(fs_rmdir(p)) }
static int do_rename(const char *f, const char *t, unsigned int g) { LOCKED(fs_rename(f, t, g)) }
static int do_chmod(const char *p, mode_t m, struct fuse_file_info *f) { LOCKED(fs_chmod(p, m, f)) }
static int do_utimens(const char *p, const struct timespec t[2], struct fuse_file_info *f) { LOCKED(fs_utimens(p, t, f)) }

static const struct fuse_operations operations = {
    .init = fs_init,
    .getattr = do_getattr,
    .readdir = do_readdir,
    .open = do_open,
    .create = do_create,
    .read = do_read,
    .write = do_write,
    .truncate = do_truncate,
    .fsync = do_fsync,
    .fsyncdir = do_fsyncdir,
    .release = do_release,
    .mknod = do_mknod,
    .mkdir = do_mkdir,
    .symlink = do_symlink,
    .readlink = do_readlink,
    .unlink = do_unlink,
    .rmdir = do_rmdir,
    .rename = do_rename,
    .chmod = do_chmod,
    .chown = fs_chown,
    .utimens = do_utimens,
    .statfs = fs_statfs,
};

static void load(struct node *folder, const char *path) {
  DIR *listing = opendir(path);
  if (listing == NULL) abort();
  for (struct dirent *found; (found = readdir(listing)) != NULL;) {
    if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0) continue;
    char below_path[4096];
    snprintf(below_path, sizeof below_path, "%s/%s", path, found->d_name);
    struct stat stat;
    if (lstat(below_path, &stat) != 0) abort();
    struct node *node = make_node(stat.st_mode);
    name(NULL, NULL, folder, found->d_name, node);
    put(&folder->kept, found->d_name, node);
    if (S_ISDIR(stat.st_mode)) load(node, below_path);
    if (!S_ISREG(stat.st_mode)) continue;
    int fd = open(below_path, O_RDONLY | O_CLOEXEC);
    resize(&node->now, &node->now_size, &node->now_room, (size_t)stat.st_size);
    resize(&node->durable, &node->durable_size, &node->durable_room, (size_t)stat.st_size);
    if (fd < 0 || read(fd, node->now, (size_t)stat.st_size) != stat.st_size) abort();
    if (stat.st_size > 0) memcpy(node->durable, node->now, (size_t)stat.st_size);
    close(fd);
  }
  closedir(listing);
}

int main(int count, char *arguments[]) {
  if (count < 5) {
    fprintf(stderr, "usage: power-disk ordered|own|posix CONTROL FROM MOUNTPOINT [FUSE options]\n");
    return 2;
  }
  is_posix = strcmp(arguments[1], "posix") == 0;
  is_own = strcmp(arguments[1], "own") == 0;
  signal(SIGPIPE, SIG_IGN);
  umask(0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", arguments[2]);
  static int listener;
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0) {
    fprintf(stderr, "power-disk: %s: %s\n", arguments[2], strerror(errno));
    return 1;
  }
  root = make_node(S_IFDIR | 0755);
  root->is_linked = true;
  if (strcmp(arguments[3], "-") != 0) {
    load(root, arguments[3]);
    // What was there is there.
    for (size_t index = 0; index < naming_count; index += 1) namings[index].is_synced = true;
    trim();
  }
  // fuse_main wants the program's name, then the mount point.
  arguments[3] = arguments[0];
  return fuse_main(count - 3, arguments + 3, &operations, &listener);
}
