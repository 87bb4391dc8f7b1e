"""Computing in float32 with narrower weights leaves no trace and needs no second model."""

import ast
import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from scarprune.cut import reload
from scarprune.cut.reload import in_float32


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5)).to(torch.bfloat16)


IDS = torch.tensor([1, 4, 6])


def test_it_computes_what_a_float32_copy_computes(model):
    with torch.no_grad(), in_float32(model):
        found = model(IDS)
    assert torch.equal(found, copy.deepcopy(model).float()(IDS))
    assert found.dtype == torch.float32


def test_it_leaves_no_trace_also_after_an_exception(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    with pytest.raises(IndexError), torch.no_grad(), in_float32(model):
        model(torch.tensor([99]))
    with torch.no_grad(), in_float32(model):
        model(IDS)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == torch.bfloat16
        assert tensor.data_ptr() == places[name]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_one_module_is_wide_at_a_time(model):
    wide = []
    model[3].register_forward_pre_hook(
        lambda *_: wide.append([name for name, p in model.named_parameters() if p.dtype == torch.float32])
    )
    with torch.no_grad(), in_float32(model):
        model(IDS)
    assert wide in ([[]], [["3.weight", "3.bias"]])


def test_the_script_never_imports_scarprune():
    tree = ast.parse(Path(reload.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.startswith("scarprune") for name in imported)
