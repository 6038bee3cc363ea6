"""The engine of MKL: how numpy is linked, and what becomes of it with the MKL that is there now. It knows no host."""
