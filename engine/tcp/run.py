"""One observer in the foreground: `run(options)` is the verb `tcp` of the command line."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from engine.errors import ExitCode, OtusError
from engine.tcp.observer import Observer
from engine.tcp.outputs import Outputs
from engine.tcp.text import costs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.options import Options

EVENTS_PAUSE_S = 0.05
"""Events are passed on in batches: at most so often."""


def run(options: Options) -> ExitCode:
    """Observe until the time is over or one of SIGNALS comes; the final summary is written in any case.

    A second signal ends it at once. Returns DONE, or INTERRUPTED. Raises OtusError.
    """
    outputs = Outputs(options)
    observer = Observer(options, outputs)
    ending = False
    try:
        with _signals() as signals:
            observer.start()
            for note in observer.notes:
                print(f"otus-tui: warning: {note}", file=sys.stderr)
            if options.verbose:
                _tell(observer)
            try:
                _loop(observer, signals)
                interrupted = bool(signals.came)
                if not interrupted:
                    observer.finish_window()
            except OtusError:
                # What was counted until then is told, and then why it ends here.
                signals.last = True
                with contextlib.suppress(OtusError):
                    observer.stop()
                raise
            signals.last = ending = True
            observer.stop()
            if options.stats and (options.format != "text" or options.mode == "detail"):
                # A text summary has them at its end.
                print("\n".join(costs(observer.backend)), file=sys.stderr)
    except BrokenPipeError:
        # Who read standard output has seen enough. The interpreter shall not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        interrupted = False
        if not ending:
            # What goes to a file has its end, too.
            with contextlib.suppress(OtusError):
                observer.stop()
    finally:
        observer.close()
        outputs.close()
    return ExitCode.INTERRUPTED if interrupted else ExitCode.DONE


def _loop(observer: Observer, signals: _Signals) -> None:
    poll = select.poll()
    poll.register(signals.reader, select.POLLIN)
    events = observer.backend.event_fd()
    if events >= 0 and observer.wants_events:
        poll.register(events, select.POLLIN)
    quiet_until = 0.0
    while not signals.came and time.monotonic() < observer.ends:
        observer.turn()
        wait = max(0.0, observer.due() - time.monotonic())
        ready = poll.poll(wait * 1000 + 1)
        if any(descriptor == events for descriptor, _ in ready):
            observer.drain()
            quiet_until = time.monotonic() + EVENTS_PAUSE_S
        pause = min(quiet_until, observer.due()) - time.monotonic()
        if pause > 0 and not signals.came:
            signals.wait(pause)


def _tell(observer: Observer) -> None:
    backend = observer.backend
    for program in backend.plan().programs:
        why = f": {program.why}" if program.why else ""
        print(f"{'on ' if program.on else 'off'}  {program.name}  {program.hook}{why}", file=sys.stderr)
    for metric, why in backend.off.items():
        print(f"not measured: {metric}: {why}", file=sys.stderr)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a run early: interrupted, told to end, its terminal is gone."""


class _Signals:
    """SIGNALS as a flag, and as a descriptor that wakes a poll."""

    def __init__(self) -> None:
        self.came = 0
        self.last = False
        """Whether the next one ends the process: nothing is left to be waited for."""
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def catch(self, number: int, _: object) -> None:
        """Signal handler."""
        if self.came or self.last:
            raise KeyboardInterrupt
        self.came = number
        with contextlib.suppress(OSError):
            os.write(self._writer, b"!")

    def wait(self, seconds: float) -> None:
        """Sleep, but not through a signal."""
        select.select([self.reader], [], [], seconds)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.reader)
        os.close(self._writer)


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    # Under nohup a hang-up means nothing.
    numbers = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, signals.catch) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signals.close()
