"""A few entries of each published network's files; see `signatures`."""

# tests/weights/test_signatures.py says what it must be.
SIGNATURES: dict[str, tuple[int, str]] = {
    "vit_small": (
        147,
        "0b5201 10fbf0 11c3c7 1aa315 1dfc35 2078a9 272d3f 27f726",
    ),
    "vit_base": (
        279,
        "03d7f8 048e23 04b8b5 05990e 05a24a 091ccb 096cc9 09b0d4",
    ),
    "vit_irpe_small": (
        183,
        "1b03c1 2ce6b8 2f66cb 319261 3c2eb4 3c5f29 3cc78f 4cb377",
    ),
    "vit_irpe_base": (
        351,
        "000184 04495b 09fe95 0e2006 162c4e 1725d6 1a8c03 1dc595",
    ),
    "vit_irpe_small_qkv": (
        183,
        "1b03c1 2ce6b8 2f66cb 319261 3c2eb4 3c5f29 3cc78f 4cb377",
    ),
    "vit_irpe_base_qkv": (
        351,
        "000184 04495b 09fe95 0e2006 162c4e 1725d6 1a8c03 1dc595",
    ),
    "vit_irpe_small_k": (
        159,
        "14cf97 2e7d73 40153b 43629d 78e7a9 7de328 8072b6 84efdb",
    ),
    "vit_irpe_base_k": (
        303,
        "0509d9 0de247 20be7f 25a4a6 2ae42f 33884e 357247 47a2db",
    ),
    "vit_kprpe_small_absolute": (
        149,
        "6cc4b1 b8b23c 0b5201 10fbf0 11c3c7 1aa315 1dfc35 2078a9",
    ),
    "vit_kprpe_base_absolute": (
        281,
        "6cc4b1 b8b23c 03d7f8 048e23 04b8b5 05990e 05a24a 091ccb",
    ),
    "vit_kprpe_small_relative": (
        149,
        "6cc4b1 b8b23c 0b5201 10fbf0 11c3c7 1aa315 1dfc35 2078a9",
    ),
    "vit_kprpe_base_relative": (
        281,
        "6cc4b1 b8b23c 03d7f8 048e23 04b8b5 05990e 05a24a 091ccb",
    ),
    "vit_kprpe_small_splithead": (
        149,
        "79b7db 898eac 0b5201 10fbf0 11c3c7 1aa315 1dfc35 2078a9",
    ),
    "vit_kprpe_base_splithead": (
        281,
        "746f54 89bc7e 03d7f8 048e23 04b8b5 05990e 05a24a 091ccb",
    ),
    "vit_kprpe_small_multihead": (
        149,
        "30183e ceaea3 0b5201 10fbf0 11c3c7 1aa315 1dfc35 2078a9",
    ),
    "vit_kprpe_base_multihead": (
        281,
        "290e11 c9e8b1 03d7f8 048e23 04b8b5 05990e 05a24a 091ccb",
    ),
    "swin_small": (
        310,
        "001ca3 019d5d 043984 0764c6 0b1b07 0c0c2c 0ca8d5 0ec870",
    ),
    "swin_base": (
        310,
        "02035b 02e91f 04b4c2 0754d7 094a11 097ccb 0c1ce8 0c5e03",
    ),
    "swin_kprpe_small": (
        267,
        "0672b9 0de467 1f7520 28e5f0 37ad9d 4c36d4 4ec202 532230",
    ),
    "swin_kprpe_base": (
        345,
        "02313b 03600d 03d782 065fce 0946b3 0cbac3 0dc87e 106c69",
    ),
    "iresnet_ir18": (
        149,
        "03a86d 0950d9 098d62 0afb49 0fb4b3 10d647 11bf0e 1a19c3",
    ),
    "iresnet_ir34": (
        269,
        "0150b4 0275f3 0542f8 0e2ed2 106f7f 110b9c 14373f 153c08",
    ),
    "iresnet_ir50": (
        389,
        "0240be 04729c 05935d 06d9cb 097991 0b1cfa 0bd092 0e313d",
    ),
    "iresnet_ir101": (
        764,
        "0016ca 005727 00cb6f 032c04 0410c8 0491c7 060b67 064c59",
    ),
    "iresnet_insightface_ir18": (
        156,
        "033330 042126 1430ea 1c450d 242a70 2496d7 26a2f4 2c72eb",
    ),
    "iresnet_insightface_ir34": (
        276,
        "03508e 048343 07aead 09d543 0a3f36 0af233 0d9baf 0da651",
    ),
    "iresnet_insightface_ir50": (
        396,
        "008ca3 00e6cd 01dd42 02bc23 04ca10 062e79 0a2036 0b1810",
    ),
    "iresnet_insightface_ir101": (
        771,
        "003d89 01165d 03cca4 042deb 047ef0 05b977 0618a9 064e65",
    ),
    "adaface_ir18": (
        149,
        "03a86d 0950d9 098d62 0afb49 0fb4b3 10d647 11bf0e 1a19c3",
    ),
    "adaface_ir50": (
        389,
        "0240be 04729c 05935d 06d9cb 097991 0b1cfa 0bd092 0e313d",
    ),
    "adaface_ir101": (
        764,
        "0016ca 005727 00cb6f 032c04 0410c8 0491c7 060b67 064c59",
    ),
    "insightface_w600k_r50": (
        396,
        "008ca3 00e6cd 01dd42 02bc23 04ca10 062e79 0a2036 0b1810",
    ),
    "insightface_glintr100": (
        771,
        "003d89 01165d 03cca4 042deb 047ef0 05b977 0618a9 064e65",
    ),
    "insightface_w600k_mbf": (
        283,
        "008186 015386 018bfe 01c818 01cb57 021db7 02eeeb 0310d1",
    ),
    "mobilefacenet_insightface": (
        283,
        "008186 015386 018bfe 01c818 01cb57 021db7 02eeeb 0310d1",
    ),
    "mobilefacenet": (
        283,
        "007709 00d51e 01bfee 029ffb 02a2e9 036e01 037309 038704",
    ),
    "deepface_emd_arcface": (
        151,
        "059339 13ae48 13d0d6 143fa5 1a9f64 22ff5f 26ec4c 3cd070",
    ),
    "deepface_emd_cosface": (
        46,
        "0eddb7 143b46 24675c 27408a 2e8a9d 3d944b 42243d 503cbd",
    ),
    "deepface_emd_facenet": (
        602,
        "0001c4 01aa9d 023b3c 034d68 035eed 03a9f3 048e37 04b1d6",
    ),
    "facenet": (
        602,
        "0001c4 01aa9d 023b3c 034d68 035eed 03a9f3 048e37 04b1d6",
    ),
    "facenet_vggface2": (
        602,
        "0001c4 01aa9d 023b3c 034d68 035eed 03a9f3 048e37 04b1d6",
    ),
    "facenet_casia": (
        602,
        "0001c4 01aa9d 023b3c 034d68 035eed 03a9f3 048e37 04b1d6",
    ),
    "dlib_resnet_v1": (
        117,
        "014e19 03561a 072579 0761ac 085a8c 0c0bde 0e9d89 0f12d9",
    ),
    "blazeface_short": (
        74,
        "0855dd 0f21c1 16d740 1864c9 199fac 2324cc 24e65c 259d26",
    ),
    "blazeface_full": (
        178,
        "0029b1 0342ab 047d8a 0542e1 0634b1 078073 08d1c9 0d446a",
    ),
    "retinaface_mnet025": (
        253,
        "0002a1 003475 01844a 026f08 06653c 0c7c95 10ab6d 10d3e5",
    ),
    "dfa_mobilenet025": (
        291,
        "0c0161 1232a1 167a9b 182ebe 18fae9 1edb76 1f9e6a 231b14",
    ),
    "caface_g4_conf512": (
        70,
        "150907 15d6f9 189ee7 39b944 3c36c7 690cdf 74899d 761faf",
    ),
    "caface_g2_conf1": (
        70,
        "1ccf21 1f7e26 414964 49458b 59763f 630758 662684 87b9de",
    ),
    "facevit_h1_depth1_head4": (
        13,
        "ada7db 8b59e1 e0dbfb b48af5 cf2ff4 1e4792 228404 4737b0",
    ),
    "facevit_h2_depth1_head1": (
        16,
        "4a8310 cfeb91 c6e126 e27e40 474abe 84d1fb b48af5 cf2ff4",
    ),
    "facevit_h2l_depth1_head1": (
        26,
        "1fe7e4 2d3f0e 75bd04 9d59ff a51d33 b07257 c87863 f852a7",
    ),
    "facevit_h2l_depth1_head4_out1024": (
        26,
        "076c8b 4b1717 523e0a 7c8dfa 802645 81202f 92290c 93bb06",
    ),
    "facevit_v_p8s8_depth20": (
        226,
        "abf6cc 026870 026c42 03c947 046fe7 053b19 062fd2 063459",
    ),
    "facevit_v_p12s8_depth20": (
        226,
        "f57dcb 026870 026c42 03c947 046fe7 053b19 062fd2 063459",
    ),
    "gaitset_gait3d": (
        11,
        "305a70 37342f 3edf76 431bf1 4d2948 4d3daf 595634 80de1b",
    ),
    "gaitbase_da_gait3d": (
        66,
        "023483 04659d 0718e3 0bc487 140b8f 17813b 1d9244 234f6e",
    ),
    "swingait2d_B1442_C2_gait3d": (
        153,
        "018100 0262d8 0360ca 049c4e 05a070 0d4798 0e806d 10f9b1",
    ),
    "swingait3d_B1442_C2_gait3d": (
        173,
        "0218cb 043469 0856cc 0f6dac 160d08 1a6a94 26101a 261dba",
    ),
    "caface_backbone_ir101_tface": (
        764,
        "0016ca 005727 00cb6f 032c04 0410c8 0491c7 060b67 064c59",
    ),
    "caface_backbone_iresnet100": (
        771,
        "003d89 01165d 03cca4 042deb 047ef0 05b977 0618a9 064e65",
    ),
    "caface_ir101": (
        764,
        "0016ca 005727 00cb6f 032c04 0410c8 0491c7 060b67 064c59",
    ),
}
