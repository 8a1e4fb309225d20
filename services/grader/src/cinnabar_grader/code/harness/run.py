"""Runs the program that its arguments begin with as Python would, but for packages: their folders are not
looked at, which takes longer than many a program.
"""


def _begun():  # pyright: ignore[reportUnknownParameterType] - of a program nobody knows
    import _sitebuiltins  # pyright: ignore[reportMissingModuleSource]
    import builtins
    import sys

    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    sys.argv = sys.argv[1:]
    globals()["__file__"] = sys.argv[0]
    del globals()["_begun"]
    with open(sys.argv[0], "rb") as file:
        return compile(file.read(), sys.argv[0], "exec", dont_inherit=True)


if __name__ == "__main__":
    exec(_begun())
