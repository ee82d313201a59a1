"""The record as one HTML file that needs no network, and its pictures as SVG and PNG.

python -m harness report --html report.html --figures pictures
"""
