"""Which errors of several processes mean that one of them is gone."""

import pytest
import torch.distributed as dist

from scarprune.runtime.ranks import _is_lost_connection


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (
            dist.DistBackendError("NCCL error in: NCCLUtils.cpp:93, remote process exited, ncclRemoteError"),
            True,
        ),
        (dist.DistBackendError("NCCL error in: NCCLUtils.cpp:93, ncclInvalidArgument: Invalid value"), False),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_connection_is_lost_or_something_else_is_wrong(error: RuntimeError, lost: bool) -> None:
    assert _is_lost_connection(error) is lost
