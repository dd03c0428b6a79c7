"""Writers of a SQLite database wait in one fair queue, over all processes.

    import sqlite3
    import sqlite_walqueue

    sqlite_walqueue.load()
    db = sqlite3.connect("app.db")

`load()` covers each connection that this process opens after the call. Each process that
writes calls it once, before its first `connect()`.
"""

import ctypes
import os
import sqlite3
from typing import Iterator

__all__ = ["LoadError", "is_loaded", "load", "path"]

# SQLite derives the entry point of an extension from this file name.
_LIBRARY = "libwalqueue.so"
_VFS = "walqueue"
_OLDEST_SQLITE = (3, 28, 0)

_SQLITE_OK = 0
_SQLITE_OPEN_READWRITE = 0x2
_SQLITE_OPEN_CREATE = 0x4

_FUNCTIONS_TO_LOAD = (
    "sqlite3_open_v2",
    "sqlite3_close",
    "sqlite3_enable_load_extension",
    "sqlite3_load_extension",
    "sqlite3_free",
)


class LoadError(RuntimeError):
    """The extension was not loaded. The message names the cause and what to do."""


def path() -> str:
    """Return the path of the SQLite extension, to load it by other means than `load()`."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), _LIBRARY)


def is_loaded() -> bool:
    """Return True if the SQLite of the module `sqlite3` has the extension in this process."""
    try:
        connection = sqlite3.connect("file::memory:?vfs=" + _VFS, uri=True)
    except sqlite3.OperationalError:
        return False  # no such vfs
    connection.close()
    return True


def load() -> None:
    """Put the connections that this process opens after the call into the queue.

    A second call does nothing. A child made by `fork()` inherits the extension.

    Raises `LoadError` if the extension is not loaded; SQLite then works as without it.
    """
    if is_loaded():
        return
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise _error(
            "not loaded: this Python has SQLite " + sqlite3.sqlite_version,
            "use a Python with SQLite 3.28 or later",
        )
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        _load_by_connection()
    else:
        _load_by_ctypes()
    if not is_loaded():
        raise _error(
            "loaded into another copy of SQLite than the one that the module sqlite3 uses",
            "use a Python whose sqlite3.Connection has enable_load_extension",
        )


def _error(failed: str, remedy: str) -> LoadError:
    return LoadError("{}: {}; {}".format(path(), failed, remedy))


def _refused(cause: object) -> LoadError:
    return _error(
        "SQLite did not load it: {}".format(cause),
        "install the wheel that was built for this machine's processor and C library",
    )


def _load_by_connection() -> None:
    connection = sqlite3.connect(":memory:")
    try:
        connection.enable_load_extension(True)
        connection.load_extension(path())
    except sqlite3.Error as error:
        raise _refused(error) from error
    finally:
        connection.close()


def _load_by_ctypes() -> None:
    """Load the extension where Python hides extensions, by calling SQLite itself.

    A VFS belongs to a copy of SQLite, not to a connection. So a connection that is opened
    here, beside the module `sqlite3`, loads the extension for all of its connections.
    """
    for sqlite in _libraries_with_sqlite():
        if all(hasattr(sqlite, name) for name in _FUNCTIONS_TO_LOAD):
            _load_into(sqlite)
            return
    raise _error(
        "not loaded: this Python was built without enable_load_extension, and its SQLite "
        "exports no function that loads extensions",
        "use a Python that was configured with --enable-loadable-sqlite-extensions, such as "
        "the one of the Linux distribution",
    )


def _libraries_with_sqlite() -> Iterator[ctypes.CDLL]:
    # A symbol is looked up in the module and in the libraries that it is linked with.
    import _sqlite3

    module = getattr(_sqlite3, "__file__", None)
    if module is not None:
        yield ctypes.CDLL(module)
    # The module is a part of the program itself.
    yield ctypes.CDLL(None)


def _load_into(sqlite: ctypes.CDLL) -> None:
    sqlite.sqlite3_open_v2.argtypes = (
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_int,
        ctypes.c_char_p,
    )
    sqlite.sqlite3_close.argtypes = (ctypes.c_void_p,)
    sqlite.sqlite3_enable_load_extension.argtypes = (ctypes.c_void_p, ctypes.c_int)
    sqlite.sqlite3_load_extension.argtypes = (
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
    )
    sqlite.sqlite3_free.argtypes = (ctypes.c_void_p,)
    sqlite.sqlite3_free.restype = None

    connection = ctypes.c_void_p()
    message = ctypes.c_void_p()
    flags = _SQLITE_OPEN_READWRITE | _SQLITE_OPEN_CREATE
    try:
        code = sqlite.sqlite3_open_v2(b":memory:", ctypes.byref(connection), flags, None)
        if code == _SQLITE_OK:
            code = sqlite.sqlite3_enable_load_extension(connection, 1)
        if code == _SQLITE_OK:
            code = sqlite.sqlite3_load_extension(
                connection, os.fsencode(path()), None, ctypes.byref(message)
            )
        if code != _SQLITE_OK:
            raise _refused(_text(message) or "result code {}".format(code))
    finally:
        sqlite.sqlite3_free(message)
        sqlite.sqlite3_close(connection)


def _text(message: ctypes.c_void_p) -> str:
    if not message.value:
        return ""
    return ctypes.string_at(message.value).decode("utf-8", "replace")
