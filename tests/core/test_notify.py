"""What is read in a datagram of sd_notify(3), and when a watchdog has waited long enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.notify import Message, Phase, Watchdog, fed, judge_silence, parse_message


@pytest.mark.parametrize(
    ("datagram", "message"),
    [
        (b"READY=1", Message(phase=Phase.READY)),
        (b"READY=1\nSTATUS=serving 3\n", Message(phase=Phase.READY, status="serving 3")),
        (b"STATUS=a=b", Message(status="a=b")),
        (b"STATUS=", Message(status="")),
        (b"RELOADING=1\nMONOTONIC_USEC=12", Message(phase=Phase.RELOADING)),
        (b"READY=1\nSTOPPING=1", Message(phase=Phase.STOPPING)),
        (b"WATCHDOG=1", Message(alive=True)),
        (b"WATCHDOG=trigger", Message(broken=True)),
        (b"WATCHDOG_USEC=1500000", Message(watchdog_seconds=1.5)),
        (b"WATCHDOG_USEC=0", Message(watchdog_seconds=0.0)),
        (b"EXTEND_TIMEOUT_USEC=250000", Message(extend_seconds=0.25)),
        (b"MAINPID=4711", Message(main_pid=4711)),
        (b"READY=1\0", Message(phase=Phase.READY)),
        (b"BARRIER=1", Message()),
        (b"X_OWN=1\nFDSTORE=1\nERRNO=2", Message()),
        (b"", Message()),
        (b"READY=0\nWATCHDOG=2", Message()),
        (b"ready=1\n READY=1", Message()),
        (b"READY=1\0\nSTATUS=x", Message()),
        (b"MAINPID=0", Message()),
        (b"MAINPID=-1\nWATCHDOG_USEC=1_0\nEXTEND_TIMEOUT_USEC= 5", Message()),
        ("MAINPID=\N{ARABIC-INDIC DIGIT ONE}".encode(), Message()),
        (b"EXTEND_TIMEOUT_USEC=" + b"9" * 19, Message()),
        (b"STATUS=\xff\x1b[2J", Message(status="\N{REPLACEMENT CHARACTER}" * 2 + "[2J")),
    ],
)
def test_what_is_read_in_a_datagram(datagram, message):
    assert parse_message(datagram) == message


@given(st.binary(max_size=4096))
def test_no_datagram_is_an_error(datagram):
    assert isinstance(parse_message(datagram), Message)


def test_a_watchdog_waits_for_its_period_after_each_sign_of_life():
    watchdog = fed(Watchdog(30.0), 100.0)
    assert judge_silence(watchdog, 129.9) == watchdog
    assert judge_silence(fed(watchdog, 120.0), 130.5) is not None
    assert judge_silence(watchdog, 130.5) is None


def test_a_watchdog_that_nobody_has_armed_waits_for_ever():
    assert judge_silence(Watchdog(30.0), 1e9) == Watchdog(30.0)


def test_a_gap_in_our_own_time_is_forgiven_once():
    watchdog = judge_silence(fed(Watchdog(30.0), 100.0), 200.0)
    assert watchdog is not None
    assert watchdog.due_at == 230.0
    assert judge_silence(watchdog, 300.0) is None, "or a host that is always late would hide a dead service"
    alive = fed(watchdog, 220.0)
    assert judge_silence(alive, 300.0) is not None
