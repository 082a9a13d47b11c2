"""The door for notebooks and programs; its names are those of the package itself (``import smoothcert as sc``)."""
