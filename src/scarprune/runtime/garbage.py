"""Python's garbage collector in a process that computes."""

import gc

_MIDDLE_COLLECTIONS = 1000  # between two full ones, in place of Python's 10


def collect_rarely() -> None:
    """Let full collections be rare in this process; those of young objects go on as before.

    A full one looks at all objects of torch and transformers, half a million: 0.1 to 0.4 s in which a GPU
    runs out of work, and the other processes of a run wait for this one. Passes leave it nothing to find.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _MIDDLE_COLLECTIONS)
