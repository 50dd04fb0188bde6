from embvar_kit._version import __version__
