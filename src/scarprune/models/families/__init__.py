"""One file per kin of architectures: declarations alone, found by their being here."""
