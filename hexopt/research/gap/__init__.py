"""How far are the solvers' plans from the best, and what does that distance cost in the end?"""
