"""``python -m scarprune`` is the same as ``scarprune``."""

from scarprune.cli.main import main

if __name__ == "__main__":
    main()
