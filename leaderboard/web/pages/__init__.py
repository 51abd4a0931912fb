"""What each page shows, as documented dataclasses: the contract between the builders and the templates.

Values are ready to print, except text from models, tasks and judges, which is hostile and escaped by the templates.
"""
