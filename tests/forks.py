"""Python processes that begin with torch imported: forked from one that has, so that it is imported once for many.

`run` takes what would follow `python`: ["-c", code, ...], ["-m", module, ...] or [script, ...], the first perhaps after
"-I". Torch and the other libraries that take long to import are there before, as they are after an import; nothing of
this project is, and nothing of the tests' own process. All share one hash seed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PARENT = """
import gc, json, os, runpy, signal, sys, traceback
import torch
import torch._dynamo  # an optimizer's first step imports it
import seaborn  # imports pandas, matplotlib and scipy.stats
torch.set_num_threads(1)  # a process forked after several have worked would wait for them for ever

def begin(asked):
    os.dup2(os.open(asked["in"], os.O_RDONLY), 0)
    for number, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    words = asked["words"]
    if not (isolated := words[0] == "-I"):
        sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    first, *rest = words[isolated:]
    if first == "-c":
        code, sys.argv = rest[0], ["-c", *rest[1:]]
        if not isolated:
            sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        if not isolated:
            sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        runpy.run_path(first, run_name="__main__")

def work(asked):
    code = 1
    signal.alarm(3600)  # ends what hangs
    try:
        begin(asked)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 255)

gc.freeze()  # no forked process looks for garbage in torch's modules
for line in sys.stdin:
    if not (pid := os.fork()):
        work(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

_parents: list["subprocess.Popen[str]"] = []


def run(
    words: Sequence[str | Path],
    *,
    input: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run `python` with these words, as `subprocess.run` would with `text` and `capture_output`."""
    if not _parents:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        _parents.append(subprocess.Popen([sys.executable, "-I", "-c", PARENT], **pipes))
    [parent] = _parents
    with tempfile.TemporaryDirectory() as place:
        given, out, err = (Path(place, name) for name in ("in", "out", "err"))
        given.write_text(input, encoding="utf-8")
        asked = {
            "words": [str(word) for word in words],
            "cwd": str(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "in": str(given),
            "out": str(out),
            "err": str(err),
        }
        parent.stdin.write(json.dumps(asked) + "\n")
        parent.stdin.flush()
        answer = parent.stdout.readline()
        assert answer, "the process that forks others has ended"
        said = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    done = subprocess.CompletedProcess(asked["words"], int(answer), *said)
    if check:
        done.check_returncode()
    return done


def end() -> None:
    """End the process that forks, if there is one."""
    while _parents:
        parent = _parents.pop()
        parent.stdin.close()
        parent.stdout.close()
        parent.wait()
