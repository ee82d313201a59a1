"""Notebooks: their sources (kaggle.py, choose.py), what makes them (make.py), and the wheels for them (wheels.py)."""
