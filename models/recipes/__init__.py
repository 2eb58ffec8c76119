"""Recipes of compositional fine-tuning, and their comparison on the same base, data and seeds.

library/*.yaml   the recipes that ship: a paper, what is its authors', what is ours, and options of a run
plans/*.yaml     the plans that ship
recipe.py        a recipe
plan.py          what is compared: base, data, recipes, seeds, benchmarks
arms.py          a comparison's folder: runs, evaluations, and whether they are of the plan
train.py         trains and measures the arms in this process
differences.py   paired differences over seeds and items
page.py          the table, the page and its picture
power.py         which gain a number of seeds and items can show
shared.py        pictures that training and benchmarks share
"""
