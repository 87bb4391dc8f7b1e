"""What two processes of torch.distributed compute together; run as a file by each of them."""

import os
import sys

import torch.distributed as dist
from safetensors.torch import save_file

from scarprune.distill.heal import heal
from support.healing import dense_and_cut, text

if __name__ == "__main__":
    store, out = sys.argv[1:]
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    teacher, student = dense_and_cut()
    heal(student, teacher, text(), held_out=text(), steps=3, batch=4, lr=1e-3)
    if rank == 0:
        save_file({k: v.contiguous() for k, v in student.state_dict().items()}, out)
    dist.destroy_process_group()
