"""`python -m bench gpu`: what a GPU gives, measured on a machine that has one."""
