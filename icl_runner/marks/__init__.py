"""Marks over regions of an image: visual prompts, and the command that draws one."""
