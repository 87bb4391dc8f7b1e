"""What arXiv 2604.23475 (version 1) reports for the quantities measured here, to stand beside them."""

from typing import Any

SOURCE = "arXiv 2604.23475v1"

# Shares and overlaps as fractions. The core share of the 8B model in the abstract and in its matched protocol
# differ; both are the paper's.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "core_share": {"median": 0.587, "min": 0.330, "max": 0.861},
        "core_share_matched_protocol": {"median": 0.402},
        "max_over_mean": {"median": 2.6e3},
        "jaccard_activation": {"median": 0.054},
        "spearman_activation": {"median": 0.26},
        "halo_over_rest": {"ratio": 2.0},
        "excess_at_half_nats": {"scar_prot": 2.179, "loss_proxy": 2.197, "wanda": 5.072},
    },
    "Llama-3.1-70B": {
        "core_share_matched_protocol": {"median": 0.614},
        "jaccard_activation": {"median": 0.084},
        "spearman_activation": {"median": 0.31},
    },
    "OLMo-2-7B": {
        "core_share": {"median": 0.717},
        "core_share_first_checkpoint": {"median": 0.186},
    },
}
