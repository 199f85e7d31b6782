"""Tables and estimates from predictions and the run history; numpy, pandas, scipy and scikit-learn, never torch.

`decomposition` separates noise, bias² and variance; `intervals` says how sure that is; the other modules turn the run
history into the tables behind one figure or verdict each.
"""

from lab.analysis.decomposition import Decomposition, decompose

__all__ = ["Decomposition", "decompose"]
