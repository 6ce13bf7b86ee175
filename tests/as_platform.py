"""A Python of another platform, as far as our own code can see: as_platform.py win32|darwin import|run ARGUMENTS...

What that platform lacks is missing for our packages alone; libraries stay what they are here, since there they are
builds of their own.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import importlib
import os
import pkgutil
import platform
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = ("dhmd", "realtime", "training")
MISSING_MODULES = {
    "win32": (
        *("termios", "tty", "pty", "fcntl", "resource", "pwd", "grp", "posix", "syslog", "crypt", "spwd"),
        *("readline", "curses", "nis", "ossaudiodev", "_posixsubprocess"),
    ),
    "darwin": ("spwd", "ossaudiodev", "msvcrt", "winreg"),
}
MISSING: Mapping[str, Mapping[str, Sequence[str]]] = {
    "win32": {
        "os": (
            *("fork", "forkpty", "openpty", "getpgrp", "getpgid", "setpgid", "getsid", "setsid", "tcgetpgrp"),
            *("tcsetpgrp", "killpg", "getuid", "geteuid", "getgid", "getegid", "getgroups", "getloadavg", "uname"),
            *("sched_getaffinity", "sched_setaffinity", "sched_yield", "sysconf", "sysconf_names", "confstr"),
            *("statvfs", "fstatvfs", "nice", "getpriority", "setpriority", "mkfifo", "mknod", "chown", "fchown"),
            *("lchown", "chroot", "sync"),
            *("fchmod", "fchdir", "pread", "pwrite", "readv", "writev", "sendfile", "posix_fadvise", "posix_spawn"),
            *("posix_fallocate", "memfd_create", "eventfd", "pidfd_open", "wait", "wait3", "wait4", "waitid"),
            *("ttyname", "ctermid", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW"),
        ),
        "signal": (
            *("SIGHUP", "SIGQUIT", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGTSTP", "SIGWINCH", "SIGCHLD", "SIGALRM"),
            *("SIGUSR1", "SIGUSR2", "SIGPIPE", "alarm", "setitimer", "pause", "pthread_kill", "pthread_sigmask"),
            *("sigwait", "sigwaitinfo", "sigtimedwait", "sigpending", "siginterrupt"),
        ),
        "socket": ("AF_UNIX", "SO_REUSEPORT", "socketpair"),
        "time": ("clock_gettime", "clock_settime", "CLOCK_MONOTONIC", "tzset", "pthread_getcpuclockid"),
    },
    "darwin": {
        "os": (
            *("sched_getaffinity", "sched_setaffinity", "memfd_create", "eventfd", "pidfd_open", "posix_fadvise"),
            *("posix_fallocate", "getrandom", "copy_file_range", "splice", "getresuid", "getresgid"),
        ),
        "signal": ("SIGSTKFLT", "SIGPWR", "SIGRTMIN", "SIGRTMAX", "sigwaitinfo", "sigtimedwait"),
        "time": ("pthread_getcpuclockid", "clock_settime"),
    },
}
SYSTEM = {"win32": "Windows", "darwin": "Darwin"}
LINUX_FILES = ("/proc", "/sys", "/dev")


class Seen(types.ModuleType):
    """A module with some attributes missing, and some others."""

    def __init__(self, real: types.ModuleType, missing: Sequence[str], instead: Mapping[str, Any]) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(instead)
        self._real, self._missing = real, frozenset(missing)

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._real, name)


class Console(types.ModuleType):
    """The console of Windows: `keys` are pressed in it."""

    def __init__(self, keys: str) -> None:
        super().__init__("msvcrt")
        self._keys = list(keys)

    def kbhit(self) -> bool:
        return bool(self._keys)

    def getwch(self) -> str:
        return self._keys.pop(0)


def _open(path: Any, flags: int, mode: int = 0o777) -> int:
    if Path(path).is_dir():
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return os.open(path, flags, mode)


def _is_of_linux(path: Path) -> bool:
    return path.as_posix().startswith(LINUX_FILES) and path.as_posix() != os.devnull


def _without_files_of_linux() -> None:
    """pathlib, which our code reads them by, finds none."""
    real_open, real_stat, real_iterdir = Path.open, Path.stat, Path.iterdir

    def refuse(path: Path) -> None:
        if _is_of_linux(path):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    def opened(self: Path, *arguments: Any, **named: Any) -> Any:
        refuse(self)
        return real_open(self, *arguments, **named)

    def stat(self: Path, **named: Any) -> os.stat_result:
        refuse(self)
        return real_stat(self, **named)

    def iterdir(self: Path) -> Any:
        refuse(self)
        return real_iterdir(self)

    Path.open, Path.stat, Path.iterdir = opened, stat, iterdir  # type: ignore[method-assign,assignment]


def _loops_of_windows() -> None:
    """No loop knows signals; the one that `asyncio.run` takes cannot wait for sockets, the other not for processes."""

    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    class Selector(asyncio.SelectorEventLoop):
        pass

    class Default(Selector):
        pass

    for name in ("add_signal_handler", "remove_signal_handler", "subprocess_exec", "subprocess_shell"):
        setattr(Selector, name, refuse)
    for name in ("add_reader", "remove_reader", "add_writer", "remove_writer"):
        setattr(Default, name, refuse)
    asyncio.SelectorEventLoop = Selector  # type: ignore[misc]
    asyncio.new_event_loop = Default
    asyncio.events.new_event_loop = Default


def become(name: str, keys: str = "") -> None:
    """From here on this is platform `name`, for what our packages import. keys: pressed in the console of Windows."""
    instead: dict[str, dict[str, Any]] = {"sys": {"platform": name}, "platform": {"system": lambda: SYSTEM[name]}}
    own: dict[str, types.ModuleType] = {}
    if name == "win32":
        instead["os"] = {"name": "nt", "open": _open}
        own["msvcrt"] = Console(keys)
        _loops_of_windows()
    _without_files_of_linux()
    known = {"sys": sys, "platform": platform, "os": os} | {one: importlib.import_module(one) for one in MISSING[name]}
    seen = {one: Seen(real, MISSING[name].get(one, ()), instead.get(one, {})) for one, real in known.items()}
    real_import = builtins.__import__

    def imported(what: str, into: Any = None, *rest: Any, **named: Any) -> Any:
        if into is not None and str(into.get("__name__")).partition(".")[0] in OURS:
            if what in own:
                return own[what]
            if what.partition(".")[0] in MISSING_MODULES[name]:
                raise ModuleNotFoundError(f"No module named {what!r}", name=what)
            if what in seen:
                return seen[what]
        return real_import(what, into, *rest, **named)

    builtins.__import__ = imported
    if name == "win32":
        for one in ("termios", "tty", "pty"):  # of no library that works there
            sys.modules[one] = None  # type: ignore[assignment]


def import_everything() -> None:
    for package in OURS:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            # An example of an exported folder reads what lies beside it there.
            if not module.name.endswith((".__main__", ".export.example")):
                importlib.import_module(module.name)
                print(module.name)


if __name__ == "__main__":
    become(sys.argv[1])
    if sys.argv[2] == "import":
        import_everything()
    else:
        from realtime import cli

        cli.main(sys.argv[2:])
