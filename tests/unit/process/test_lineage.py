import os
import signal
import subprocess
import sys

import pytest
from kindergarten import is_alive, pid_in, until

from cyclone.errors import EXIT_INTERNAL
from cyclone.process import lineage
from cyclone.process.lineage import (
    Process,
    descendants,
    end_with_parent,
    has_variable,
    processes,
    slay_and_wait,
)


@pytest.fixture
def family(tmp_path):
    """A shell, its child, and a grandchild in a session of its own: `(shell, {pids})`."""
    file = tmp_path / "pids"
    script = f"setsid sh -c 'echo $$ > {file}; exec sleep 600' & sleep 600 & wait"
    shell = subprocess.Popen(["sh", "-c", script], env={**os.environ, "KIN": "yes"})
    pid_in(file)
    until(lambda: len(descendants(shell.pid, processes())) == 2)
    yield shell, {shell.pid, *descendants(shell.pid, processes())}
    slay_and_wait(lambda: descendants(shell.pid, processes()), 5)
    shell.kill()
    shell.wait()


def test_we_stand_in_the_table():
    assert processes()[os.getpid()] == Process(os.getppid(), os.getsid(0))


def test_a_name_with_blanks_and_parentheses_is_no_obstacle():
    script = "import time; from cyclone.process.lineage import name_process as n; n(') S 1 ('); print(1, flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    child.stdout.readline()

    assert processes()[child.pid].parent == os.getpid()

    child.kill()
    child.wait()
    child.stdout.close()


def test_a_zombie_is_not_in_the_table():
    child = subprocess.Popen(["true"])

    until(lambda: not is_alive(child.pid))

    assert child.pid not in processes()
    child.wait()


def test_descendants_are_all_below_and_nobody_else():
    table = {1: Process(0, 1), 2: Process(1, 1), 3: Process(2, 1), 4: Process(2, 4), 5: Process(1, 1)}

    assert descendants(2, table) == {3, 4}
    assert descendants(5, table) == set()


def test_all_that_is_found_is_killed(family):
    _, pids = family

    left = slay_and_wait(lambda: descendants(os.getpid(), processes()) & pids, 10)

    assert left == set()
    # Nobody here adopts orphans: one whose parent was faster to die is not found any more, and may die a moment later.
    until(lambda: not any(map(is_alive, pids)), "their end")


def test_who_cannot_be_killed_is_named_and_not_waited_for_for_ever(monkeypatch, family):
    shell, _ = family

    with monkeypatch.context() as patch:
        patch.setattr(lineage, "send", lambda pid, signum: None)
        left = slay_and_wait(lambda: {shell.pid}, 0.05)

    assert left == {shell.pid}


def test_what_is_forked_while_we_look_is_found():
    rounds = iter([{101}, {101, 102}, {101, 102, 103}, {101, 102, 103}])
    sent = []
    send, lineage.send = lineage.send, lambda pid, signum: sent.append((pid, signum))

    try:
        slain = lineage.slay(lambda: next(rounds))
    finally:
        lineage.send = send

    assert slain == {101, 102, 103}
    assert sent[:3] == [(101, signal.SIGSTOP), (102, signal.SIGSTOP), (103, signal.SIGSTOP)]
    assert {signum for _, signum in sent[3:]} == {signal.SIGKILL}


def test_a_variable_of_a_living_process_is_seen(family):
    shell, _ = family

    assert has_variable(shell.pid, b"KIN=yes")
    assert not has_variable(shell.pid, b"KIN=ye")


def test_nobody_has_no_variable():
    assert not has_variable(2**22 + 1, b"KIN=yes")


def test_the_exit_of_children_is_collected():
    child = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", "exit 3"])

    collected = until(lineage.collect_dead, "the dead child")

    assert collected == {child: 3}


def test_a_child_that_was_found_dead_keeps_its_pid_until_it_is_collected():
    child = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", "kill -TERM $$"])
    found = until(lineage.find_dead, "the dead child")

    os.kill(found, signal.SIGTERM)  # raises if there were nobody of that number

    assert lineage.collect(found) == -signal.SIGTERM
    assert found == child
    assert lineage.find_dead() is None


def test_a_child_whose_parent_has_ended_already_does_not_begin():
    # Nobody has a parent with the number 0 here.
    begun = subprocess.Popen(["true"], preexec_fn=lambda: end_with_parent(os.getppid(), signal.SIGKILL))
    orphaned = subprocess.Popen(["true"], preexec_fn=lambda: end_with_parent(0, signal.SIGKILL))

    assert (begun.wait(), orphaned.wait()) == (0, EXIT_INTERNAL)
