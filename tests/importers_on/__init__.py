"""The importers on configuration files of other projects, which stay outside this repository.

`python -m tests.importers_on DIRECTORY` imports every file of DIRECTORY/KIND/OWNER/NAME/VERSION/PATH and
reads each a second time with readers of its own, to check what must hold for any file.
"""
