"""The sums of a profile by plain autograd in float64, one block at a time: an independent route."""

import numpy as np
import torch
import torch.nn.functional as F


def u_and_s(model, sites, ids, labels=None):
    """u and s [T, m] of every site for one block, by retained gradients of a summed cross-entropy."""
    seen, handles = {}, []

    def keep(name):
        def hook(module, args):
            u = args[0].detach().requires_grad_() if not args[0].requires_grad else args[0]
            u.retain_grad()
            seen[name] = u
            return (u,)

        return hook

    for site in sites:
        handles.append(model.get_submodule(site.name).register_forward_pre_hook(keep(site.name)))
    logits = model(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    targets = torch.as_tensor(ids[1:] if labels is None else labels)
    loss = F.cross_entropy(logits[:-1].double(), targets, reduction="sum")
    loss.backward()
    model.zero_grad()
    length = len(ids)
    return {
        site.name: (
            seen[site.name].detach().double().reshape(length, -1).numpy(),
            seen[site.name].grad.double().reshape(length, -1).numpy(),
        )
        for site in sites
    }, float(loss.detach())


def sums_of_blocks(pairs, groups):
    """All sums of ``method`` 1 for one site from a list of (u, s), one pair a block."""
    bands = [slice(0, 1), slice(1, 4), slice(4, None)]
    m = pairs[0][0].shape[1]
    names = {
        "sum_u": lambda u, s: u,
        "sum_u2": lambda u, s: u**2,
        "sum_s": lambda u, s: s,
        "sum_s2": lambda u, s: s**2,
        "sum_q": lambda u, s: u * s,
        "sum_abs_q": lambda u, s: np.abs(u * s),
        "sum_q2": lambda u, s: (u * s) ** 2,
        "sum_q4": lambda u, s: (u * s) ** 4,
        "sum_us2": lambda u, s: u * s**2,
    }
    out = {n: np.array([sum(f(u, s)[b].sum(0) for u, s in pairs) for b in bands]) for n, f in names.items()}
    g = np.array([(u * s).sum(0) for u, s in pairs])
    big_s = np.array([s.sum(0) for u, s in pairs])
    q2 = np.array([((u * s) ** 2).sum(0) for u, s in pairs])
    u2 = np.array([(u**2).sum(0) for u, s in pairs])
    out |= {
        "block_G2": (g**2).sum(0),
        "block_GS": (g * big_s).sum(0),
        "block_S2": (big_s**2).sum(0),
        "block_q2_squared": (q2**2).sum(0),
        "groups_q2": np.array(
            [q2[groups == k].sum(0) if (groups == k).any() else np.zeros(m) for k in range(8)]
        ),
        "groups_G": np.array(
            [g[groups == k].sum(0) if (groups == k).any() else np.zeros(m) for k in range(8)]
        ),
        "groups_u2": np.array(
            [u2[groups // 2 == k].sum(0) if (groups // 2 == k).any() else np.zeros(m) for k in range(4)]
        ),
        "block_mean_abs_u_squared": sum(np.abs(u).mean(0) ** 2 for u, s in pairs),
        "block_norm_u": sum(np.sqrt((u**2).sum(0)) for u, s in pairs),
    }
    return out
