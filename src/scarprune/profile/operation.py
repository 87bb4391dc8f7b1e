"""A function that a compiler does not look into, such as one that launches a kernel."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def operation(name: str, blank: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function of tensors one operation to a compiler; elsewhere it is called as it is.

    Args:
        name: of the operation, ``scarprune::name``.
        blank: the same arguments -> outputs of the right shapes, whose values do not count.
    """

    def made(function: Callable[P, R]) -> Callable[P, R]:
        torch.library.custom_op(f"scarprune::{name}", function, mutates_args=()).register_fake(blank)
        whole: Callable[P, R] = getattr(torch.ops.scarprune, name)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return whole(*args, **kwargs) if torch.compiler.is_compiling() else function(*args, **kwargs)

        return call

    return made
