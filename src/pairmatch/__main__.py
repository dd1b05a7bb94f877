"""`python -m pairmatch` is the command `pairmatch`."""

from pairmatch.cli import main

if __name__ == "__main__":
    main()
