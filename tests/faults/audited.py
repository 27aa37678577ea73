"""What Python itself tells of a process (``sys.addaudithook``), to see that no effect is outside of the known points.

Every event is put into one of two classes here. One that is in neither fails the run too: nobody has thought about it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.faults.points import Watch, normal

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

#: Events of effects: each must lie inside a point that is a leaf.
EFFECTS = frozenset(
    {
        *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"),
        *(
            "os.chown",
            "os.utime",
            "os.setxattr",
            "os.removexattr",
            "os.chflags",
            "os.lockf",
            "os.putenv",
            "os.unsetenv",
        ),
        *(
            "subprocess.Popen",
            "os.exec",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn",
            "os.spawn",
            "os.system",
            "pty.spawn",
        ),
        *("os.kill", "os.killpg", "signal.pthread_kill", "os.startfile"),
        *("socket.connect", "socket.sendto", "socket.sendmsg", "socket.sethostname", "webbrowser.open"),
        *("sqlite3.connect", "shutil.unpack_archive", "shutil.chown", "syslog.syslog", "ftplib.connect"),
    }
)

#: Events of what leaves nothing behind. Those that are made of others (``shutil.rmtree``) stand here too: their parts
#: are events of their own.
HARMLESS = (
    # looks
    *("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr", "os.chdir", "os.fchdir"),
    *("glob.glob", "glob.glob/2", "pathlib.Path.glob", "pathlib.Path.rglob"),
    # sockets that do nothing yet: a port that is only asked for is let go of at once
    *("socket.__new__", "socket.bind", "socket.gethostname", "socket.getaddrinfo", "socket.getnameinfo"),
    # locks and limits, which end with the process
    *("resource.setrlimit", "resource.prlimit", "fcntl.flock", "fcntl.lockf", "fcntl.fcntl", "fcntl.ioctl"),
    # made of other events
    *("shutil.rmtree", "shutil.copyfile", "shutil.copytree", "shutil.move", "shutil.copymode", "shutil.copystat"),
    *("tempfile.mkstemp", "tempfile.mkdtemp", "urllib.Request", "http.client.connect", "http.client.send"),
    # Python's own
    *("import", "compile", "exec", "marshal.load", "marshal.loads", "marshal.dumps", "pickle.find_class"),
    *("object.__getattr__", "object.__setattr__", "object.__delattr__", "code.__new__", "function.__new__"),
    *("sys._getframe", "sys._getframemodulename", "sys._current_frames", "sys.addaudithook", "sys.unraisablehook"),
    *("sys.excepthook", "sys.settrace", "sys.setprofile", "sys.set_asyncgen_hook_finalizer"),
    *("sys.set_asyncgen_hook_firstiter", "sys.set_asyncgen_hooks", "builtins.id", "builtins.input", "time.sleep"),
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "array.__new__", "mmap.__new__"),
    *("_thread.start_new_thread", "_thread.start_joinable_thread", "ctypes.dlopen", "ctypes.dlsym"),
    *("ctypes.dlsym/handle", "ctypes.cdata", "ctypes.call_function"),
)
_HARMLESS = frozenset(HARMLESS)


def cross_check(watch: Watch) -> None:
    """From now on, note in ``watch.uncovered`` each effect that no leaf point covers, and each unknown event."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watch.scope.in_leaf or event in _HARMLESS:
            return
        if event == "open":
            path, flags = arguments[0], arguments[2]
            if not isinstance(path, int) and isinstance(flags, int) and flags & _WRITES and path != os.devnull:
                watch.uncovered.append(f"an effect that no fault point covers: open {_named(path)} for writing")
        elif event == "os.kill" and arguments[1] == 0:  # asks whether the process is there
            return
        elif event in EFFECTS:
            said = ", ".join(map(_named, arguments))
            watch.uncovered.append(f"an effect that no fault point covers: {event}({said})")
        else:
            watch.uncovered.append(f"an audit event that is neither an effect nor harmless: {event}")

    sys.addaudithook(hook)


def _named(value: object) -> str:
    text = os.fsdecode(value) if isinstance(value, bytes) else str(value)
    return normal(text)[:120]
