"""The drawings of a template: lines, areas, arrows, texts and positions at given dates and prices."""
