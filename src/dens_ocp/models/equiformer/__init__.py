"""Parts of Equiformer (Liao and Smidt, ICLR 2023, arXiv 2206.11990), on e3nn.

Features are e3nn irreps tensors (N, dim): for each degree l in ascending order ``mul`` channels of
2 l + 1 components. All irreps are even (SE(3)), each degree occurs once.
"""
