"""`python -m lightning_gancompress`."""

from lightning_gancompress.cli import main

if __name__ == "__main__":
    main()
