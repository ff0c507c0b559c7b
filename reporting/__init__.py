"""Reports: one self-contained HTML file from what a run or a study left."""
