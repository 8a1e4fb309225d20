from collections.abc import Sequence

__file__: str

def main(command_arguments: Sequence[str]) -> int: ...
