"""Sets of image pairs in their public layouts, made up."""

from helpers.files import picture, put

BIRDS = [
    "img1ObservationURL",
    "img1ImgURL",
    "img1Species",
    "img1Selection",
    "img2ObservationURL",
    "img2ImgURL",
    "img2Species",
    "img2Selection",
    "split",
    "annN",
    "description",
]
_PHOTO, _STATIC = "https://www.inaturalist.org/photos", "https://static.inaturalist.org/photos"


def bird_line(one, two, split, number, text) -> str:
    return "\t".join(
        [
            f"{_PHOTO}/{one}",
            f"{_STATIC}/{one}/large.jpg?1",
            "Turdus merula",
            "base",
            f"{_PHOTO}/{two}",
            f"{_STATIC}/{two}/large.jpeg?2",
            "Pica pica",
            "visual",
            split,
            str(number),
            text,
        ]
    )


COMPBENCH = {
    "st_label/st.json": [
        {
            "image_1": "release_dataset/images/large church/a.jpg",
            "image_2": "release_dataset/images/large church/b.jpg",
            "type": "Size",
            "answer": "Left",
            "question": "Which church is larger?",
        },
        {
            "image_1": "release_dataset\\images\\large church\\b.jpg",
            "image_2": "release_dataset/images/large church/a.jpg",
            "type": "State",
            "answer": "Right",
            "question": "Which steps are more broken ?",
        },
    ],
    "car_label/cars.json": [
        {"image_1": "comp_cars/test_image/73/a.jpg", "image_2": "comp_cars/test_image/73/b.jpg", "answer": "Right"}
    ],
    "soccernet_label/all_test.json": [
        {
            "image_1": "england_epl/1.png",
            "image_2": "england_epl/3.png",
            "answer": "Left",
            "CLIP_similarity": 0.9,
            "action": "Foul",
        }
    ],
    "soccernet_label/all_val.json": [{"left": "england_epl/3.png", "right": "england_epl/1.png", "answer": "Right"}],
    "vqav2_label/vqa.json": [
        {
            "image_1": "val2014/793/1.jpg",
            "image_2": "val2014/793/2.jpg",
            "answer": "Same",
            "folder": "793",
            "question": "Which image has more trees?",
        },
        {
            "image_1": "val2014/793/1.jpg",
            "image_2": "val2014/793/2.jpg",
            "answer": "Left",
            "folder": "793",
            "question": "Which image has more trees?",
        },
    ],
}
COMPBENCH_IMAGES = [
    "transformed_states/release_dataset/images/large church/a.jpg",
    "transformed_states/release_dataset/images/large church/b.jpg",
    "comp_cars/test_image/73/a.jpg",
    "comp_cars/test_image/73/b.jpg",
    "soccernet/val/england_epl/1.png",
    "soccernet/val/england_epl/3.png",
    "vqav2/counting_images/val2014/793/1.jpg",
    "vqav2/counting_images/val2014/793/2.jpg",
]


def make_compbench(tmp_path):
    for name, rows in COMPBENCH.items():
        put(tmp_path / name, rows)
    put(tmp_path / "mb_label" / "mb.json", [{"image_1": "x", "image_2": "y", "options": "a, b", "answer": "a"}])
    for name in COMPBENCH_IMAGES:
        picture(tmp_path / name)
    return tmp_path
