"""Text and right target of the first query of MMEB's image sets, as published: the first row of each miniature."""

FIRST: dict[str, tuple[str, str]] = {
    "ImageNet-1K": ("", "coucal"),
    "N24News": ("Anthony Pidgeon", "Travel"),
    "HatefulMemes": ("", "Yes"),
    "VOC2007": ("", "chair"),
    "SUN397": ("", "firing range indoor"),
    "Place365": ("", "berth"),
    "ImageNet-A": ("", "Rottweiler"),
    "ImageNet-R": ("", "flute"),
    "ObjectNet": ("", "tray"),
    "Country211": ("", "Fiji"),
    "OK-VQA": ("What sport can you use this for?", "race"),
    "A-OKVQA": ("What is in the motorcyclist's mouth?", "cigarette"),
    "DocVQA": ("What is the \u2018actual\u2019 value per 1000, during the year 1975?", "0.28"),
    "InfographicsVQA": ("Which social platform has heavy female audience?", "pinterest"),
    "ChartQA": ("How many food item is shown in the bar graph?", "14"),
    "Visual7W": ("What color is the sidewalk?", "Gray."),
    "ScienceQA": (
        "Which of the following could Gordon's test show?",
        "how steady a parachute with a 1 m vent was at 200 km per hour",
    ),
    "VizWiz": ("Can you tell me what this medicine is please?", "night time"),
    "GQA": ("What is this bird called?", "This is a parrot."),
    "TextVQA": ("what is the brand of this camera?", "dakota"),
    "MSCOCO_i2t": ("", "A man with a red helmet on a small moped on a dirt road."),
    "VisualNews_i2t": (
        "",
        "Indian National Congress Vice President Rahul Gandhi addresses the special plenary session of "
        "Confederation of Indian Industr in New Delhi on April 4 2013.",
    ),
    "VisDial": (
        "Q:is the photo in color\nA:yes\nQ:is it a professional photo\nA:no\nQ:is it well lit\nA:no\nQ:is it "
        "daytime\nA:i don't see windows\nQ:does this look like an adults bedroom\nA:maybe\nQ:is the room clean\n"
        "A:no\nQ:can you tell what kind of computer it is\nA:no not really\nQ:is it a flat screen\nA:yes\n"
        "Q:what's the desk made out of\nA:cheap plastic or wood\nQ:is there a computer chair\nA:yes",
        "",
    ),
    "MSCOCO_t2i": ("A man with a red helmet on a small moped on a dirt road.", ""),
    "VisualNews_t2i": (
        "Indian National Congress Vice President Rahul Gandhi addresses the special plenary session of "
        "Confederation of Indian Industr in New Delhi on April 4 2013.",
        "",
    ),
    "WebQA": (
        "Does a Minnetonka Rhododendron flower have petals in a cup shape?",
        "2020-05-08 15 17 05 Minnetonka Rhododendron flower along Tranquility Court in the Franklin Farm "
        "section of Oak Hill, Fairfax County, Virginia Minnetonka Rhododendron flower along Tranquility "
        "Court in the Franklin Farm section of Oak Hill, Fairfax County, Virginia.",
    ),
    "EDIS": (
        "Former Israeli president and prime minister Shimon Peres right and Palestinian President Mahmoud "
        "Abbas arrive at the World Economic Forum in Southern Shuneh Jordan in May 2015.",
        "WorldAs the West pays tribute to Peres, many Arabs recall a legacy of destruction.",
    ),
    "Wiki-SS-NQ": ("who needs to know about the jet stream", ""),
    "CIRR": ("Show three bottles of soft drink.", ""),
    "NIGHTS": ("", ""),
    "OVEN": (
        "What is the name of this place?",
        "Titisee. The Titisee is a lake in the southern Black Forest in Baden-Württemberg. It covers an area "
        "of 1.3 (km2) and is an average of 20 (m) deep. It owes its formation to the Feldberg glacier, the "
        "moraines of which were formed in the Pleistocene epoch and nowadays form the shores of the lake. "
        "The lake's outflow, at 840 (m) above sea level, is the River Gutach, which merges with the Haslach "
        "stream below Kappel to form the Wutach. The waters of the Titisee thus drain eventually into the "
        "Upper Rhine between Tiengen and Waldshut. On the north shore lies the.",
    ),
    "FashionIQ": ("Is shiny and silver with shorter sleeves and fit and flare.", ""),
    "MSCOCO": ('"dog"', ""),
    "RefCOCO": ('"bowl behind the others can only see part"', ""),
    "RefCOCO-Matching": ('"bowl behind the others can only see part"', '"Dish in top right corner"'),
    "Visual7W-Pointing": ('"Which box frames the toilet?"', ""),
}
