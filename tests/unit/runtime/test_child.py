"""A child answers, refuses, or is known to have died, with its last word."""

import pytest

from scarprune.runtime.child import Child, ChildError

SCRIPT = """
import json, os, sys
print("ready", file=sys.stderr)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "double":
        print(json.dumps({"n": 2 * request["n"], "offline": os.environ["HF_HUB_OFFLINE"]}), flush=True)
    elif request["do"] == "refuse":
        print(json.dumps({"error": "I will not"}), flush=True)
    elif request["do"] == "path":
        print(json.dumps({"path": sys.path}), flush=True)
    elif request["do"] == "kill":
        os.kill(os.getpid(), 9)
    else:
        raise LookupError("no such thing")
"""


@pytest.fixture
def child(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with Child(script) as child:
        yield child


def test_it_answers_one_request_after_another(child):
    assert child.ask(do="double", n=2) == {"n": 4, "offline": "1"}
    child.send(do="double", n=3)
    assert child.receive()["n"] == 6


def test_a_refusal_does_not_end_it(child):
    with pytest.raises(ChildError, match="I will not"):
        child.ask(do="refuse")
    assert child.ask(do="double", n=1)["n"] == 2


def test_its_last_word_is_told_also_when_asked_again(child):
    with pytest.raises(ChildError, match="LookupError: no such thing"):
        child.ask(do="anything")
    with pytest.raises(ChildError, match="LookupError: no such thing"):
        child.ask(do="double", n=1)


def test_a_killed_one_is_called_so(child):
    with pytest.raises(ChildError, match="killed by signal 9, most likely for want of memory"):
        child.ask(do="kill")


def test_it_sees_neither_its_own_folder_nor_the_working_directory(child, tmp_path):
    found = child.ask(do="path")["path"]
    assert str(tmp_path) not in found
    assert "" not in found
