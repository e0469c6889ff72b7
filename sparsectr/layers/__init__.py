"""The layers of SparseCTR and of the models it is compared with."""
