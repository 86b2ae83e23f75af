"""A task outside the tree: how high is a tone?"""
