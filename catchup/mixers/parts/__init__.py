"""What several methods are made of, or one of them leans on: boxes, partners, saliency, solvers,
the Mix Block.
"""
