"""How a child ends that has lost its supervisor: its input is a pipe from it, which closes whatever happens to it."""

import os
import signal
import threading

_STDIN = 0


def end_with_supervisor() -> None:
    """Send this process a SIGTERM when its input comes to an end, so that it stops as it does when it is asked to."""

    def wait() -> None:
        while os.read(_STDIN, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()
