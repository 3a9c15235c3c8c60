"""A module to be run: prints, line by line, the command that would run it again."""

from blackhole_cg.kernel.own_command import own_command

print("\n".join(own_command("once more")))
