"""The report: tables → figures → one HTML page. See page (what is built) and figures (one function a figure).

history → tables (analysis) → sections (question, answer, evidence) → view (what templates get) → page.
"""
