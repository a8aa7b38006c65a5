"""KMNIST: characters of old Japanese books (Clanuwat et al., 2018)."""

from vsml.tasks.data.idx import idx_entry

KMNIST = idx_entry(
    "KMNIST",
    ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    (
        "",  # of the train images nobody has published it
        "949e75301f8813e0dc5800dcc320fc52",
        "bf305b8cd328700fbc17f5acbc2856d2",
        "9f55f451c0988b028eccdf7d5cc265ab",
    ),
    mean=0.1918,
    std=0.3483,
)
