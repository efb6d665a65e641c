"""``python -m aim_sdk`` is ``aim-icl``."""

from aim_sdk.cli import main

if __name__ == "__main__":
    main()
