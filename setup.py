"""What pyproject.toml cannot hold; everything else is there."""

from setuptools import setup

# setuptools builds in build/, which is the file BUILD on disks that ignore case.
setup(options={"build": {"build_base": "_build"}})
