/*
** A VFS for stock SQLite that stops at the file calls a test asks for.
**
** "pausing" wraps the "unix" VFS.  Every file call that matters to the WAL
** protocol is a point with a name, passed twice: "before shm:lock:SHARED:READ1"
** and, with the call's result, "after shm:lock:SHARED:READ1".  A controller in
** another process arms one point; the n-th pass of it reports itself and waits
** for permission to go on.  README.md lists the points and the commands.
**
** The control channel is a Unix stream socket, PAUSING_VFS_CONTROL, to which
** the extension connects when it is loaded.  A socket, because the kernel then
** tells either side when the other was killed, and because a command that was
** sent is seen by every later point without a thread in this process.
*/
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define VFS_NAME "pausing"

/* Longest name of a point, command or report, with its end. */
#define LINE_SIZE 128

/* The VFS beneath; set once, before this one is registered. */
static sqlite3_vfs *innerVfs;

/* What the controller asked for.  The mutex is held while a point is passed, so
** a stop halts every thread of the process at its next point. */
static struct {
  pthread_mutex_t mutex;
  int socket;               /* -1: no controller, or it is gone */
  int trace;                /* -1: no trace */
  unsigned long armId;      /* given by the controller, repeated in the report */
  unsigned remaining;       /* passes until the stop; 0: not armed */
  char pattern[LINE_SIZE];  /* name of a point, or the start of one and '*' */
} control = { PTHREAD_MUTEX_INITIALIZER, -1, -1, 0, 0, "" };

/* --- The control channel ------------------------------------------------ */

/* Without a controller nobody could let a stopped process go, so none stops. */
static void dropController(void){
  close(control.socket);
  control.socket = -1;
  control.remaining = 0;
}

/* The next byte from the controller; -1 when there is none or it is gone. */
static int readByte(int flags){
  unsigned char byte;
  ssize_t got;
  if( control.socket<0 ) return -1;
  do{
    got = recv(control.socket, &byte, 1, flags);
  }while( got<0 && errno==EINTR );
  if( got==1 ) return byte;
  if( got==0 || (errno!=EAGAIN && errno!=EWOULDBLOCK) ) dropController();
  return -1;
}

/* Reads one line; 0 when there is none.  With MSG_DONTWAIT only its first byte
** may be missing: the controller sends whole lines. */
static int readLine(char *line, int flags){
  size_t length = 0;
  int byte = readByte(flags);
  while( byte>=0 && byte!='\n' ){
    if( length<LINE_SIZE-1 ) line[length++] = (char)byte;
    byte = readByte(0);
  }
  line[length] = 0;
  return byte=='\n';
}

static void writeAll(int fd, const char *text, size_t length, int isSocket){
  while( length>0 ){
    /* A controller that was killed must be an error here, not a SIGPIPE. */
    ssize_t put = isSocket ? send(fd, text, length, MSG_NOSIGNAL)
                           : write(fd, text, length);
    if( put<0 && errno==EINTR ) continue;
    if( put<=0 ) return;
    text += put;
    length -= (size_t)put;
  }
}

/* Does what a command says; 1 if it lets a stopped process go on. */
static int obey(const char *line){
  unsigned long id;
  unsigned nth;
  int patternAt = 0;
  if( sscanf(line, "arm %lu %u %n", &id, &nth, &patternAt)==2 && patternAt>0 ){
    control.armId = id;
    control.remaining = nth;
    snprintf(control.pattern, sizeof control.pattern, "%s", line+patternAt);
    return 0;
  }
  if( strcmp(line, "disarm")==0 ){
    control.remaining = 0;
    return 1;
  }
  return strcmp(line, "go")==0;
}

static int matchesPattern(const char *point){
  size_t length = strlen(control.pattern);
  if( length>0 && control.pattern[length-1]=='*' ){
    return strncmp(point, control.pattern, length-1)==0;
  }
  return strcmp(point, control.pattern)==0;
}

/* Reports the stop and waits for permission, or for the controller's end. */
static void stopAt(const char *report){
  char line[LINE_SIZE*2];
  int length = snprintf(line, sizeof line, "stopped %lu %s\n", control.armId, report);
  writeAll(control.socket, line, (size_t)length, 1);
  while( readLine(line, 0) ){
    if( obey(line) ) return;
  }
}

static void traceLine(const char *report){
  char line[LINE_SIZE*2];
  int length;
  if( control.trace<0 ) return;
  /* One write a line, so that appending processes never mix theirs. */
  length = snprintf(line, sizeof line, "%s\n", report);
  writeAll(control.trace, line, (size_t)length, 0);
}

/* Passes the point `point`; `report` is its name with the result, if any. */
static void passPoint(const char *point, const char *report){
  char line[LINE_SIZE];
  int savedErrno = errno;  /* SQLite may yet ask for the call's own errno. */
  pthread_mutex_lock(&control.mutex);
  traceLine(report);
  while( readLine(line, MSG_DONTWAIT) ) obey(line);
  if( control.remaining>0 && matchesPattern(point) && --control.remaining==0 ){
    stopAt(report);
  }
  pthread_mutex_unlock(&control.mutex);
  errno = savedErrno;
}

/* --- Points ------------------------------------------------------------- */

typedef struct Point {
  char name[LINE_SIZE/2];
} Point;

/* Names a point and passes its "before". */
__attribute__((format(printf, 1, 2)))
static Point before(const char *format, ...){
  Point point;
  char line[LINE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(point.name, sizeof point.name, format, arguments);
  va_end(arguments);
  snprintf(line, sizeof line, "before %s", point.name);
  passPoint(line, line);
  return point;
}

/* Passes the "after" of a point; returns `rc`, for the caller to return. */
static int after(const Point *point, int rc){
  char line[LINE_SIZE];
  char report[LINE_SIZE+16];
  snprintf(line, sizeof line, "after %s", point->name);
  snprintf(report, sizeof report, "%s rc=%d", line, rc);
  passPoint(line, report);
  return rc;
}

static const char *lockLevelName(int level){
  static const char *const names[] = {
    "NONE", "SHARED", "RESERVED", "PENDING", "EXCLUSIVE"
  };
  return names[level];
}

/* "WRITE", "CKPT-RECOVER", "READ1-4": the bytes of one shm lock. */
static void shmRangeName(char *name, size_t size, int offset, int count){
  static const char *const names[SQLITE_SHM_NLOCK] = {
    "WRITE", "CKPT", "RECOVER", "READ0", "READ1", "READ2", "READ3", "READ4"
  };
  const char *last = names[offset+count-1];
  if( count==1 ){
    snprintf(name, size, "%s", last);
  }else{
    if( strncmp(names[offset], "READ", 4)==0 ) last += 4;
    snprintf(name, size, "%s-%s", names[offset], last);
  }
}

/* --- Files -------------------------------------------------------------- */

/* An open file; the inner VFS's own structure follows it in memory. */
typedef struct PausingFile {
  sqlite3_file base;
  const char *kind;     /* "db", "wal" or "journal" */
} PausingFile;

static sqlite3_file *innerFile(sqlite3_file *file){
  return (sqlite3_file*)((PausingFile*)file + 1);
}

static const sqlite3_io_methods *innerMethods(sqlite3_file *file){
  return innerFile(file)->pMethods;
}

static const char *kindOf(sqlite3_file *file){
  return ((PausingFile*)file)->kind;
}

static int pausingClose(sqlite3_file *file){
  Point point = before("%s:close", kindOf(file));
  return after(&point, innerMethods(file)->xClose(innerFile(file)));
}

static int pausingRead(sqlite3_file *file, void *out, int amount, sqlite3_int64 offset){
  Point point = before("%s:read", kindOf(file));
  return after(&point, innerMethods(file)->xRead(innerFile(file), out, amount, offset));
}

static int pausingWrite(sqlite3_file *file, const void *data, int amount, sqlite3_int64 offset){
  Point point = before("%s:write", kindOf(file));
  return after(&point, innerMethods(file)->xWrite(innerFile(file), data, amount, offset));
}

static int pausingTruncate(sqlite3_file *file, sqlite3_int64 size){
  Point point = before("%s:truncate", kindOf(file));
  return after(&point, innerMethods(file)->xTruncate(innerFile(file), size));
}

static int pausingSync(sqlite3_file *file, int flags){
  Point point = before("%s:sync", kindOf(file));
  return after(&point, innerMethods(file)->xSync(innerFile(file), flags));
}

static int pausingFileSize(sqlite3_file *file, sqlite3_int64 *size){
  return innerMethods(file)->xFileSize(innerFile(file), size);
}

static int pausingLock(sqlite3_file *file, int level){
  Point point = before("%s:lock:%s", kindOf(file), lockLevelName(level));
  return after(&point, innerMethods(file)->xLock(innerFile(file), level));
}

static int pausingUnlock(sqlite3_file *file, int level){
  Point point = before("%s:unlock:%s", kindOf(file), lockLevelName(level));
  return after(&point, innerMethods(file)->xUnlock(innerFile(file), level));
}

static int pausingCheckReservedLock(sqlite3_file *file, int *isReserved){
  return innerMethods(file)->xCheckReservedLock(innerFile(file), isReserved);
}

static int pausingFileControl(sqlite3_file *file, int op, void *argument){
  int rc = innerMethods(file)->xFileControl(innerFile(file), op, argument);
  if( op==SQLITE_FCNTL_VFSNAME && rc==SQLITE_OK ){
    char **name = argument;
    *name = sqlite3_mprintf(VFS_NAME "/%z", *name);
  }
  return rc;
}

static int pausingSectorSize(sqlite3_file *file){
  return innerMethods(file)->xSectorSize(innerFile(file));
}

static int pausingDeviceCharacteristics(sqlite3_file *file){
  return innerMethods(file)->xDeviceCharacteristics(innerFile(file));
}

static int pausingShmMap(
  sqlite3_file *file, int block, int blockSize, int extend, void volatile **memory
){
  Point point = before("shm:map");
  return after(&point,
      innerMethods(file)->xShmMap(innerFile(file), block, blockSize, extend, memory));
}

static int pausingShmLock(sqlite3_file *file, int offset, int count, int flags){
  char range[LINE_SIZE/4];
  Point point;
  shmRangeName(range, sizeof range, offset, count);
  point = before("shm:%s:%s:%s",
      (flags & SQLITE_SHM_UNLOCK) ? "unlock" : "lock",
      (flags & SQLITE_SHM_SHARED) ? "SHARED" : "EXCLUSIVE", range);
  return after(&point, innerMethods(file)->xShmLock(innerFile(file), offset, count, flags));
}

static void pausingShmBarrier(sqlite3_file *file){
  Point point = before("shm:barrier");
  innerMethods(file)->xShmBarrier(innerFile(file));
  after(&point, SQLITE_OK);
}

static int pausingShmUnmap(sqlite3_file *file, int removeFile){
  Point point = before("shm:unmap");
  return after(&point, innerMethods(file)->xShmUnmap(innerFile(file), removeFile));
}

static int pausingFetch(sqlite3_file *file, sqlite3_int64 offset, int amount, void **page){
  Point point = before("%s:fetch", kindOf(file));
  return after(&point, innerMethods(file)->xFetch(innerFile(file), offset, amount, page));
}

static int pausingUnfetch(sqlite3_file *file, sqlite3_int64 offset, void *page){
  return innerMethods(file)->xUnfetch(innerFile(file), offset, page);
}

static const sqlite3_io_methods pausingMethods = {
  3,
  pausingClose, pausingRead, pausingWrite, pausingTruncate, pausingSync,
  pausingFileSize, pausingLock, pausingUnlock, pausingCheckReservedLock,
  pausingFileControl, pausingSectorSize, pausingDeviceCharacteristics,
  pausingShmMap, pausingShmLock, pausingShmBarrier, pausingShmUnmap,
  pausingFetch, pausingUnfetch
};

/* --- The VFS ------------------------------------------------------------ */

/* The kind of a file that has points; 0 for temporary files of every sort. */
static const char *kindByFlags(int flags){
  if( flags & SQLITE_OPEN_MAIN_DB ) return "db";
  if( flags & SQLITE_OPEN_WAL ) return "wal";
  if( flags & SQLITE_OPEN_MAIN_JOURNAL ) return "journal";
  return 0;
}

/* A deletion comes without flags, so its kind is told by the name's end. */
static const char *kindByName(const char *name){
  const char *dash = strrchr(name, '-');
  if( dash==0 ) return 0;
  if( strcmp(dash, "-wal")==0 ) return "wal";
  if( strcmp(dash, "-journal")==0 ) return "journal";
  return 0;
}

static int openInner(const char *name, sqlite3_file *file, int flags, int *outFlags){
  sqlite3_file *inner = innerFile(file);
  int rc;
  inner->pMethods = 0;
  rc = innerVfs->xOpen(innerVfs, name, inner, flags, outFlags);
  if( rc==SQLITE_OK && inner->pMethods->iVersion<3 ){
    /* Every method of version 3 is passed through, so all must be there. */
    inner->pMethods->xClose(inner);
    inner->pMethods = 0;
    rc = SQLITE_CANTOPEN;
  }
  /* SQLite closes a file that has methods, even if opening it failed. */
  file->pMethods = inner->pMethods ? &pausingMethods : 0;
  return rc;
}

static int pausingOpen(
  sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *outFlags
){
  const char *kind = kindByFlags(flags);
  Point point;
  (void)vfs;
  /* szOsFile has room for the inner structure, so it can do without ours. */
  if( kind==0 ) return innerVfs->xOpen(innerVfs, name, file, flags, outFlags);
  ((PausingFile*)file)->kind = kind;
  point = before("%s:open", kind);
  return after(&point, openInner(name, file, flags, outFlags));
}

static int pausingDelete(sqlite3_vfs *vfs, const char *name, int syncDirectory){
  const char *kind = kindByName(name);
  Point point;
  (void)vfs;
  if( kind==0 ) return innerVfs->xDelete(innerVfs, name, syncDirectory);
  point = before("%s:delete", kind);
  return after(&point, innerVfs->xDelete(innerVfs, name, syncDirectory));
}

/* The rest has no points: each call goes to the VFS beneath, which must see
** itself as the first argument and not the copy that wraps it. */

static int pausingAccess(sqlite3_vfs *vfs, const char *name, int flags, int *result){
  (void)vfs;
  return innerVfs->xAccess(innerVfs, name, flags, result);
}

static int pausingFullPathname(sqlite3_vfs *vfs, const char *name, int size, char *out){
  (void)vfs;
  return innerVfs->xFullPathname(innerVfs, name, size, out);
}

static void *pausingDlOpen(sqlite3_vfs *vfs, const char *name){
  (void)vfs;
  return innerVfs->xDlOpen(innerVfs, name);
}

static void pausingDlError(sqlite3_vfs *vfs, int size, char *message){
  (void)vfs;
  innerVfs->xDlError(innerVfs, size, message);
}

static void (*pausingDlSym(sqlite3_vfs *vfs, void *library, const char *symbol))(void){
  (void)vfs;
  return innerVfs->xDlSym(innerVfs, library, symbol);
}

static void pausingDlClose(sqlite3_vfs *vfs, void *library){
  (void)vfs;
  innerVfs->xDlClose(innerVfs, library);
}

static int pausingRandomness(sqlite3_vfs *vfs, int size, char *out){
  (void)vfs;
  return innerVfs->xRandomness(innerVfs, size, out);
}

static int pausingSleep(sqlite3_vfs *vfs, int microseconds){
  (void)vfs;
  return innerVfs->xSleep(innerVfs, microseconds);
}

static int pausingCurrentTime(sqlite3_vfs *vfs, double *julianDay){
  (void)vfs;
  return innerVfs->xCurrentTime(innerVfs, julianDay);
}

static int pausingGetLastError(sqlite3_vfs *vfs, int size, char *message){
  (void)vfs;
  return innerVfs->xGetLastError(innerVfs, size, message);
}

static int pausingCurrentTimeInt64(sqlite3_vfs *vfs, sqlite3_int64 *milliseconds){
  (void)vfs;
  return innerVfs->xCurrentTimeInt64(innerVfs, milliseconds);
}

/* Version 2: version 3 adds only the replacing of system calls. */
static sqlite3_vfs pausingVfs = {
  2, 0, 0, 0, VFS_NAME, 0,
  pausingOpen, pausingDelete, pausingAccess, pausingFullPathname,
  pausingDlOpen, pausingDlError, pausingDlSym, pausingDlClose,
  pausingRandomness, pausingSleep, pausingCurrentTime, pausingGetLastError,
  pausingCurrentTimeInt64,
  0, 0, 0
};

/* --- Loading ------------------------------------------------------------ */

/* Connects to the controller, if the environment names one; 0 if that failed. */
static int connectController(void){
  const char *path = getenv("PAUSING_VFS_CONTROL");
  struct sockaddr_un address;
  if( path==0 ) return 1;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  if( strlen(path)>=sizeof address.sun_path ) return 0;
  memcpy(address.sun_path, path, strlen(path));
  control.socket = socket(AF_UNIX, SOCK_STREAM, 0);
  if( control.socket<0 ) return 0;
  fcntl(control.socket, F_SETFD, FD_CLOEXEC);
  if( connect(control.socket, (struct sockaddr*)&address, sizeof address)==0 ) return 1;
  dropController();
  return 0;
}

/* Opens the trace, if the environment names one; 0 if that failed. */
static int openTrace(void){
  const char *path = getenv("PAUSING_VFS_TRACE");
  if( path==0 ) return 1;
  control.trace = open(path, O_WRONLY|O_APPEND|O_CREAT|O_CLOEXEC, 0644);
  return control.trace>=0;
}

static int fail(char **message, const char *text){
  *message = sqlite3_mprintf("pausing VFS: %s", text);
  return SQLITE_ERROR;
}

/* The entry point that SQLite derives from the file name pausing_vfs.so.  The
** VFS outlives the loading connection: others will still be using it.  As the
** default VFS it is beneath the shim of an extension that is loaded later. */
int sqlite3_pausingvfs_init(sqlite3 *db, char **message, const sqlite3_api_routines *api){
  int isDefault = getenv("PAUSING_VFS_DEFAULT")!=0;
  SQLITE_EXTENSION_INIT2(api);
  (void)db;
  if( sqlite3_vfs_find(VFS_NAME) ) return SQLITE_OK_LOAD_PERMANENTLY;
  innerVfs = sqlite3_vfs_find("unix");
  if( innerVfs==0 || innerVfs->iVersion<2 ) return fail(message, "no unix VFS to wrap");
  if( !connectController() ) return fail(message, "cannot reach PAUSING_VFS_CONTROL");
  if( !openTrace() ) return fail(message, "cannot open PAUSING_VFS_TRACE");
  pausingVfs.szOsFile = (int)sizeof(PausingFile) + innerVfs->szOsFile;
  pausingVfs.mxPathname = innerVfs->mxPathname;
  if( sqlite3_vfs_register(&pausingVfs, isDefault)!=SQLITE_OK ) return fail(message, "cannot register");
  return SQLITE_OK_LOAD_PERMANENTLY;
}
