"""Call functions of test modules in a sandbox: each in a process forked for it."""

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import msgspec

from inference.engine.sandbox import sandbox
from inference.engine.sandbox.rules import SandboxRules
from inference.installation import walls

ROOT = Path(__file__).parents[4]


class Inside(msgspec.Struct):
    """What a function did inside: its value, or its exception's name and text."""

    value: object = None
    error: str = ""
    text: str = ""
    walls: dict[str, str] = {}


def inside(function, *arguments, rules, before=(), lacks=None, **options):
    """Call a function inside.

    The process from which it is forked has imported `before`. `lacks` replaces fields
    of `walls.Kernel`, as on machines with an older kernel.
    """
    start = _fork_server if options else _kept_fork_server
    server = start(before, **options)
    call = {
        "module": function.__module__,
        "function": function.__name__,
        "arguments": [str(it) if isinstance(it, Path) else it for it in arguments],
        "rules": msgspec.to_builtins(rules),
        "lacks": lacks or {},
    }
    server.stdin.write(json.dumps(call) + "\n")
    server.stdin.flush()
    result = msgspec.json.decode(server.stdout.readline(), type=Inside)
    if options:
        _end(server)
    return result


def _fork_server(before, environ=None, **options):
    return subprocess.Popen(
        [sys.executable, "-m", __name__, *before],
        cwd=ROOT,
        env=os.environ | (environ or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


@functools.cache
def _kept_fork_server(before):
    server = _fork_server(before)
    atexit.register(_end, server)
    return server


def _end(server):
    server.stdin.close()
    server.stdout.close()
    server.wait()


def main():
    for needed in sys.argv[1:]:
        importlib.import_module(needed)
    for line in sys.stdin:
        call = json.loads(line)
        importlib.import_module(call["module"])
        pid = os.fork()
        if pid:
            _, status = os.waitpid(pid, 0)
            if status:
                answer(Inside(error="ended", text=str(status)))
            continue
        signal.alarm(120)
        result = Inside()
        try:
            kernel = msgspec.structs.replace(walls.kernel(), **call["lacks"])
            walls.kernel = lambda kernel=kernel: kernel
            result.walls = sandbox.enter(msgspec.convert(call["rules"], SandboxRules))
            function = getattr(sys.modules[call["module"]], call["function"])
            result.value = function(*call["arguments"])
        except Exception as error:
            traceback.print_exc()
            result.error, result.text = type(error).__name__, str(error)
        answer(result)
        os._exit(0)


def answer(result):
    with contextlib.suppress(BrokenPipeError):
        os.write(1, msgspec.json.encode(result) + b"\n")


if __name__ == "__main__":
    main()
